"""A PlatformIO core folder that builds offline, made of what the system has.

PlatformIO downloads its platform, its compiler and SCons on first use.  Where
that is impossible, this puts stand-ins in their places: a platform that does to
a bare build what ``platformio/ststm32`` does (builder/frameworks/_bare.py), the
system's arm-none-eabi-gcc, and the SCons of PyPI.  The project's own
``platformio.ini`` is used unchanged; its pinned versions are read from it.

    python tests/pio_seed.py PROJECT CORE_DIR
"""

from __future__ import annotations

import configparser
import json
import re
import shutil
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

PLATFORM_PY = """\
from platformio.public import PlatformBase


class Ststm32Platform(PlatformBase):
    pass
"""

# What the real platform sets for a project without a framework.
MAIN_PY = """\
from SCons.Script import Default, DefaultEnvironment

env = DefaultEnvironment()
cpu = "-mcpu=" + env.BoardConfig().get("build.cpu")
env.Replace(
    AR="arm-none-eabi-gcc-ar", AS="arm-none-eabi-as", CC="arm-none-eabi-gcc",
    CXX="arm-none-eabi-g++", OBJCOPY="arm-none-eabi-objcopy", RANLIB="arm-none-eabi-gcc-ranlib",
    SIZETOOL="arm-none-eabi-size", ARFLAGS=["rc"], PROGNAME="firmware", PROGSUFFIX=".elf",
)
env.Append(
    CCFLAGS=["-Os", "-ffunction-sections", "-fdata-sections", "-Wall", "-mthumb", cpu],
    CPPDEFINES=[("F_CPU", "$BOARD_F_CPU")],
    LINKFLAGS=["-Os", "-Wl,--gc-sections,--relax", "-mthumb", cpu],
    LIBS=["c", "gcc", "m", "stdc++"],
)
Default([env.BuildProgram()])
"""

SCONS_PY = """\
import sys
from SCons.Script.Main import main

sys.exit(main())
"""

SCONS_VERSION = "4.41101.0"
"""What PlatformIO 6 asks for; an ini cannot say so."""


def missing() -> str | None:
    """Why no offline build is possible here, or None."""
    if find_spec("platformio") is None:
        return "platformio is not installed"
    if find_spec("SCons") is None:
        return "SCons is not installed (pip install scons)"
    if shutil.which("arm-none-eabi-gcc") is None:
        return "arm-none-eabi-gcc is not installed"
    return None


def environment(core: Path) -> dict[str, str]:
    """The variables that make PlatformIO use the seeded folder."""
    return {"PLATFORMIO_CORE_DIR": str(core)}


def seed(project: Path, core: Path) -> None:
    """Fill ``core`` with what the project's platformio.ini asks for."""
    config = configparser.ConfigParser(inline_comment_prefixes=(";",))
    config.read(project / "platformio.ini")
    section = next(name for name in config.sections() if name.startswith("env:"))
    platform, version = _pinned(config[section]["platform"])
    toolchain, toolchain_version = _pinned(config[section]["platform_packages"])
    board = config[section]["board"]
    _package(
        core / "platforms" / platform,
        "platform",
        platform,
        version,
        {
            "platform.json": json.dumps(
                {
                    "name": platform,
                    "title": "Stand-in for " + platform,
                    "version": version,
                    "engines": {"platformio": "^6"},
                    "packages": {
                        toolchain: {
                            "type": "toolchain",
                            "owner": "platformio",
                            "version": toolchain_version,
                        }
                    },
                }
            ),
            "platform.py": PLATFORM_PY,
            "builder/main.py": MAIN_PY,
            f"boards/{board}.json": json.dumps(
                {
                    "build": {"cpu": "cortex-m4", "f_cpu": "16000000L", "mcu": "stand-in"},
                    "name": board,
                    "frameworks": [],
                    "upload": {"maximum_ram_size": 131072, "maximum_size": 524288},
                    "url": "",
                    "vendor": "stand-in",
                }
            ),
        },
    )
    _package(
        core / "packages" / "tool-scons",
        "tool",
        "tool-scons",
        SCONS_VERSION,
        {"scons.py": SCONS_PY},
    )
    folder = core / "packages" / toolchain
    _package(folder, "tool", toolchain, toolchain_version, {})
    compiler = Path(str(shutil.which("arm-none-eabi-gcc"))).parent
    (folder / "bin").mkdir(exist_ok=True)
    for program in compiler.glob("arm-none-eabi-*"):
        link = folder / "bin" / program.name
        if not link.is_symlink():
            link.symlink_to(program)


def _pinned(spec: str) -> tuple[str, str]:
    """Name and lowest version of ``owner/name@~1.2.3``."""
    match = re.fullmatch(r"\s*platformio/([\w-]+)@~?([\d.]+)\s*", spec)
    if match is None:
        raise SystemExit(f"not a pinned package: {spec!r}")
    return match[1], match[2]


def _package(folder: Path, kind: str, name: str, version: str, files: dict[str, str]) -> None:
    owned = {"type": kind, "name": name, "version": version}
    spec = {"owner": "platformio", "id": None, "name": name, "requirements": None, "uri": None}
    described = {**files, ".piopm": json.dumps({**owned, "spec": spec})}
    if kind == "tool":
        described["package.json"] = json.dumps({"name": name, "version": version})
    for path, text in described.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    reason = missing()
    if reason:
        raise SystemExit(reason)
    seed(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"PlatformIO {metadata.version('platformio')} builds offline with:")
    for key, value in environment(Path(sys.argv[2])).items():
        print(f"  export {key}={Path(value).resolve()}")
