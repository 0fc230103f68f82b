"""What is refused before anything is traced: unsound modules and example inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from bnnmcu.errors import UnsupportedModelError, UsageError

__all__ = ["check_example", "check_module", "pixel_map"]

_EXAMPLE = "pass one input as it goes into the network, e.g. torch.rand(1, 1, 28, 28)"


def check_example(example: Any) -> torch.Tensor:
    """The example input, which must be one batch of one.

    Raises:
        UsageError: it is not.
    """
    where = "example_input"
    if isinstance(example, list | tuple | dict):
        raise UsageError(
            f"a {type(example).__name__} of inputs: networks of one input are supported",
            where=where,
            hint=_EXAMPLE,
        )
    if not isinstance(example, torch.Tensor):
        raise UsageError(f"is a {type(example).__name__}, not a tensor", where=where, hint=_EXAMPLE)
    shape = tuple(example.shape)
    if example.is_complex():
        raise UsageError("is complex", where=where, hint="pass real and imaginary part as channels")
    if example.dtype not in (torch.float32, torch.float64):
        name = str(example.dtype).removeprefix("torch.")
        raise UsageError(
            f"is {name}, not float32",
            where=where,
            hint="pass what the network sees: pixels.float() / 255, normalised as in training",
        )
    if example.device.type != "cpu":
        raise UsageError(f"is on {example.device}", where=where, hint="example_input.cpu()")
    if not 2 <= len(shape) <= 4:
        raise UsageError(
            f"has shape {shape}; (1, C, H, W), (1, C, L) and (1, F) are supported",
            where=where,
            hint=_EXAMPLE,
        )
    if shape[0] != 1:
        single = "example_input[:1]" if shape[0] else _EXAMPLE
        alone = f"{single}, or example_input.unsqueeze(0) if it is a single image without a batch"
        raise UsageError(f"has shape {shape}: a batch of one is needed", where=where, hint=alone)
    if min(shape) < 1:
        raise UsageError(f"has shape {shape}, which is empty", where=where, hint=_EXAMPLE)
    if not torch.isfinite(example).all():
        raise UsageError("contains NaN or infinity", where=where, hint=_EXAMPLE)
    return example.detach().clone()


def check_module(module: Any, example: torch.Tensor) -> nn.Module:
    """The module itself, without wrappers; its parameters must be usable.

    Raises:
        UsageError: it is no module, or holds tensors of another device or type.
        UnsupportedModelError: it is compiled, scripted or quantised by torch.
    """
    # torch.compile leaves the module inside.
    module = getattr(module, "_orig_mod", module)
    if isinstance(module, type) and issubclass(module, nn.Module):
        raise UsageError(
            f"{module.__name__} is a class, not a module",
            hint=f"create it and load its weights: {module.__name__}(...)",
        )
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"a {type(module).__name__} is no torch.nn.Module",
            hint="pass the network itself; for files use the command bnnmcu export FILE",
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedModelError(
            "is a TorchScript module",
            where=type(module).__name__,
            hint="pass the Python module that it was made from",
        )
    if isinstance(module, nn.DataParallel):
        raise UsageError("is wrapped in DataParallel", hint="pass module.module")
    for path, child in module.named_modules():
        if "quantized" in type(child).__module__.split("."):
            raise UnsupportedModelError(
                f"is quantised by torch ({type(child).__name__})",
                where=path or type(child).__name__,
                hint="pass the float network; its quantisation is done here",
            )
    named = [*module.named_parameters(), *module.named_buffers()]
    for path, tensor in named:
        if is_lazy(tensor):
            raise UsageError(
                "has no shape yet", where=path, hint="run the module once: module(example_input)"
            )
        if tensor.device.type != "cpu":
            raise UsageError(f"is on {tensor.device}", where=path, hint="module.cpu()")
        if tensor.is_complex():
            raise UsageError(
                "is complex", where=path, hint="use real weights, with two channels for each"
            )
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            name = str(tensor.dtype).removeprefix("torch.")
            raise UsageError(f"is {name}, not float32", where=path, hint="module.float()")
        if tensor.is_floating_point() and tensor.dtype != example.dtype:
            kinds = [str(d).removeprefix("torch.") for d in (tensor.dtype, example.dtype)]
            raise UsageError(
                f"is {kinds[0]}, the example input {kinds[1]}",
                where=path,
                hint=f"example_input.to(torch.{kinds[0]})",
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise UsageError(
                f"{bad} of {tensor.numel()} values are NaN or infinite",
                where=path,
                hint="the training diverged: train again with a lower learning rate",
            )
    return module


def pixel_map(channels: int, mean: Any, std: Any) -> tuple[Any, Any]:
    """(scale, offset) per channel: pixel p stands for (p / 255 - mean) / std.

    Raises:
        UsageError: they are not one number, or one for each channel.
    """
    both = []
    for name, given in (("mean", mean), ("std", std)):
        try:
            tensor = torch.as_tensor(given, dtype=torch.float64).detach().reshape(-1)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UsageError(f"{given!r} is no number", where=name) from error
        if tensor.numel() not in (1, channels) or not torch.isfinite(tensor).all():
            raise UsageError(
                f"{tensor.numel()} values for {channels} channels",
                where=name,
                hint=f"give one finite number, or {channels}",
            )
        both.append(tensor.expand(channels).numpy())
    if (both[1] <= 0).any():
        raise UsageError("must be above zero", where="std")
    return 1 / (255 * both[1]), -both[0] / both[1]
