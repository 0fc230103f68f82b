"""A PlatformIO core folder that builds without a network, made of what is installed.

PlatformIO downloads its platform, its compiler and SCons on first use.  Where
that is impossible, this puts stand-ins in their places: a platform that does to
a bare build what the real ones do, the system's arm-none-eabi-gcc, and the SCons
of the Python environment.  The project's own ``platformio.ini`` is used
unchanged; the versions that it pins are read from it.  Uploading needs the real
platform, and the compiler's version is the system's: both are said.
"""

from __future__ import annotations

import configparser
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bnnmcu import __version__
from bnnmcu.backend.emit import template_bytes
from bnnmcu.boards import Board
from bnnmcu.errors import MissingDependencyError, ModelFileError, UsageError
from bnnmcu.modelfile import atomic_write
from bnnmcu.toolchain.detect import GCC, program_version

__all__ = ["Seed", "missing", "seed_core"]

_PINNED = re.compile(r"\s*([\w-]+)/([\w-]+)@~?\s*([\d.]+)\s*")
_MARK = "bnnmcu-offline.json"


@dataclass(frozen=True)
class Seed:
    """A core folder that was filled.

    Attributes:
        core: the folder.
        environment: what makes PlatformIO use it.
        compiler: version of the system's compiler, which stands in for the pinned one.
        pinned: the version that the project pins.
    """

    core: Path
    environment: Mapping[str, str]
    compiler: str
    pinned: str


@dataclass(frozen=True)
class _Package:
    owner: str
    name: str
    version: str


def missing() -> MissingDependencyError | None:
    """Why no offline build is possible here, or None."""
    if find_spec("platformio") is None:
        return MissingDependencyError(
            "PlatformIO is not installed", hint="pip install 'bnnmcu[flash]'"
        )
    if find_spec("SCons") is None:
        return MissingDependencyError("SCons is not installed", hint="pip install scons")
    if shutil.which(GCC) is None:
        return MissingDependencyError(
            f"{GCC} is not installed", hint="apt install gcc-arm-none-eabi"
        )
    return None


def seed_core(core: Path, project: Path, board: Board) -> Seed:
    """Fill a core folder with what a project's ``platformio.ini`` asks for.

    Several projects may share one folder.  A folder that PlatformIO itself has
    filled is left alone.

    Raises:
        MissingDependencyError: PlatformIO, SCons or the compiler is not installed.
        UsageError: the folder is in use for something else.
        ModelFileError: the ini pins nothing, or cannot be read.
        OSError: the folder cannot be written.
    """
    absent = missing()
    if absent is not None:
        raise absent
    core = core.resolve()
    if core.is_dir() and any(core.iterdir()) and not (core / _MARK).is_file():
        raise UsageError(
            "the folder is not empty and was not made by 'bnnmcu pio-offline'",
            where=str(core),
            hint="name a new folder: the stand-ins must not mix with downloaded packages",
        )
    platform, toolchain = _pins(project / "platformio.ini")
    files = _platform_files(platform, toolchain, board)
    _write(core / "platforms" / platform.name, "platform", platform, files)
    scons = _Package("platformio", "tool-scons", _scons_version())
    text = template_bytes("pio_offline/scons.py").decode()
    _write(core / "packages" / scons.name, "tool", scons, {"scons.py": text})
    folder = core / "packages" / toolchain.name
    _write(folder, "tool", toolchain, {})
    compiler = Path(str(shutil.which(GCC)))
    _link_programs(compiler.parent, folder / "bin")
    atomic_write(core / _MARK, (json.dumps({"bnnmcu": __version__}) + "\n").encode())
    return Seed(
        core,
        {"PLATFORMIO_CORE_DIR": str(core)},
        program_version(str(compiler)),
        _gcc_of(toolchain.version),
    )


def _gcc_of(package: str) -> str:
    """The compiler in a package: 12.3.1 in 1.120301.0, as PlatformIO numbers them."""
    match = re.fullmatch(r"\d+\.(\d{1,2})(\d\d)(\d\d)\.\d+", package)
    return package if match is None else ".".join(str(int(part)) for part in match.groups())


def _scons_version() -> str:
    """The SCons that the installed PlatformIO asks for; no ini can say so."""
    from platformio.dependencies import get_core_dependencies

    return str(get_core_dependencies()["tool-scons"]).lstrip("~^")


def _platform_files(platform: _Package, toolchain: _Package, board: Board) -> dict[str, str]:
    described = {
        "name": platform.name,
        "title": f"Stand-in for {platform.name} (bnnmcu)",
        "version": platform.version,
        "engines": {"platformio": "^6"},
        "packages": {
            toolchain.name: {
                "type": "toolchain",
                "owner": toolchain.owner,
                "version": toolchain.version,
            }
        },
    }
    cpu = next(flag for flag in board.machine_flags if flag.startswith("-mcpu="))
    chip = {
        # The clock is the firmware's own affair: bnn_board.h has it.
        "build": {"cpu": cpu.removeprefix("-mcpu="), "f_cpu": "0L", "mcu": board.chip.lower()},
        "name": board.title,
        "frameworks": [],
        "upload": {"maximum_ram_size": board.ram.size, "maximum_size": board.flash.size},
        "url": "",
        "vendor": "",
    }
    return {
        "platform.json": json.dumps(described, indent=2),
        "builder/main.py": template_bytes("pio_offline/main.py").decode(),
        f"boards/{board.platformio.board}.json": json.dumps(chip, indent=2),
    }


def _pins(ini: Path) -> tuple[_Package, _Package]:
    """The platform and the compiler that a project pins."""
    config = configparser.ConfigParser(inline_comment_prefixes=(";",), interpolation=None)
    try:
        config.read_string(ini.read_text(encoding="utf-8"))
        section = next(name for name in config.sections() if name.startswith("env:"))
        platform, packages = config[section]["platform"], config[section]["platform_packages"]
    except (OSError, UnicodeDecodeError, configparser.Error, StopIteration, KeyError) as error:
        raise ModelFileError(
            f"names no platform and compiler ({type(error).__name__})",
            where=str(ini),
            hint="export the project again",
        ) from error
    found = [_PINNED.fullmatch(text) for text in (platform, packages)]
    if found[0] is None or found[1] is None:
        raise ModelFileError(
            f"does not pin its packages: {platform!r}, {packages!r}",
            where=str(ini),
            hint="export the project again: OWNER/NAME@VERSION is what it writes",
        )
    return _Package(*found[0].groups()), _Package(*found[1].groups())


def _write(folder: Path, kind: str, package: _Package, files: Mapping[str, str]) -> None:
    owned = {"type": kind, "name": package.name, "version": package.version}
    spec = {
        "owner": package.owner,
        "id": None,
        "name": package.name,
        "requirements": None,
        "uri": None,
    }
    written = {**files, ".piopm": json.dumps({**owned, "spec": spec})}
    if kind == "tool":
        written["package.json"] = json.dumps({"name": package.name, "version": package.version})
    for path, text in written.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / path, text.encode())


def _link_programs(there: Path, here: Path) -> None:
    here.mkdir(exist_ok=True)
    for program in there.glob("arm-none-eabi-*"):
        link = here / program.name
        # Made anew: the compiler may have moved since.
        link.unlink(missing_ok=True)
        link.symlink_to(program)
