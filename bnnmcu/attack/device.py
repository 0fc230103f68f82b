"""Which device computes gradients."""

from __future__ import annotations

import torch

from bnnmcu.errors import UsageError

__all__ = ["choose_device"]


def choose_device(name: str) -> torch.device:
    """``cpu``, ``cuda``, or for ``auto`` the GPU where there is one.

    Raises:
        UsageError: another name, or torch sees no such device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device {name!r} is unknown; use auto, cpu or cuda")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise UsageError("torch sees no CUDA device here", hint="use device auto or cpu")
    if name == "cpu" or not there:
        return torch.device("cpu")
    # Ten bits of mantissa would make the integer twin inexact.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")
