"""Builds a generated project: with gcc or zig directly, or through PlatformIO.

Whatever the toolchain, the flags are those of the board (``compile_flags``),
the sources those under ``src/``, and the result one ELF.  A build whose inputs
have not changed is not repeated; an ELF appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bnnmcu.backend.checksum import stamp
from bnnmcu.boards import CORES, Board, load_board
from bnnmcu.errors import MissingDependencyError, ToolchainError, UsageError
from bnnmcu.modelfile import atomic_write
from bnnmcu.toolchain import platformio
from bnnmcu.toolchain.detect import GCC, package_version, program_version, zig_command
from bnnmcu.toolchain.elf import Firmware, read_firmware
from bnnmcu.toolchain.process import Log, error_lines, run
from bnnmcu.toolchain.stack import FLAGS as STACK_FLAGS
from bnnmcu.toolchain.stack import StackBound, reports_calls, stack_bound

__all__ = ["TOOLCHAINS", "BuildResult", "build_firmware"]

TOOLCHAINS = ("platformio", "gcc", "zig")

LINK_FLAGS = (
    "-nostartfiles",
    "-nostdlib",
    "-Wl,--gc-sections",
    "-Wl,-T,linker.ld",
    # zig names an entry of its own otherwise.
    "-Wl,-e,bnn_reset",
)

_STAMP = "build.json"
_SCRIPTS = ("bnn_build.py", "bnn_checksum.py")


@dataclass(frozen=True)
class BuildResult:
    """A built firmware.

    Attributes:
        elf: the file.
        flash_bytes: bytes of flash it fills.
        ram_bytes: bytes of RAM it takes, the reserved stack included.
        stack_bytes: the reserved stack.
        stack_bound: the most that can be used of it; None if the compiler does
            not report what that takes.
        toolchain: one of :data:`TOOLCHAINS`.
        version: of the compiler, or of PlatformIO and its compiler.
        built: False if nothing had changed since the last build.
    """

    elf: Path
    flash_bytes: int
    ram_bytes: int
    stack_bytes: int
    stack_bound: StackBound | None
    toolchain: str
    version: str
    built: bool


@dataclass(frozen=True)
class _Compiler:
    """A compiler that is called directly."""

    name: str
    command: tuple[str, ...]
    version: str
    machine: tuple[str, ...]
    compile_only: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()


def build_firmware(
    project: Path, toolchain: str, *, log: Log | None = None, announce: Log | None = None
) -> BuildResult:
    """Build a generated project.

    Args:
        project: the folder that ``bnnmcu export`` wrote.
        toolchain: one of :data:`TOOLCHAINS`.
        log: is given each line that the tools print.
        announce: is told before a step that may take minutes; ``log`` if None.

    Raises:
        MissingDependencyError: the toolchain is not installed.
        ToolchainError: no such project, or the build fails, with the first
            lines that say why; or the stack can outgrow what is reserved.
        UsageError: an unknown toolchain.
    """
    if toolchain not in TOOLCHAINS:
        raise UsageError(f"unknown toolchain {toolchain!r}", hint=f"one of {', '.join(TOOLCHAINS)}")
    project = project.resolve()
    board = _board_of(project)
    if toolchain == "platformio":
        if not board.platformio.board:
            raise ToolchainError(
                f"PlatformIO does not know the board {board.name}",
                where=str(project),
                hint="use --toolchain gcc or --toolchain zig",
            )
        pio = platformio.find()
        key = _key(project, board, ("platformio", pio.version, *pio.environment))
        out = project / "build" / "platformio"
        elf = project / ".pio" / "build" / board.name / "firmware.elf"
        stamped = _stamped(out, key, elf)
        if stamped is not None:
            return _result(board, elf, toolchain, *stamped, built=False)
        platformio.build(project, board, pio, log, announce or log)
        version = f"{pio.version}, gcc {read_firmware(elf).gcc_version or 'unknown'}"
        bound = None
    else:
        compiler = _gcc(board) if toolchain == "gcc" else _zig(board)
        command = (*compiler.command, *compiler.machine, *compiler.libraries, *LINK_FLAGS)
        key = _key(project, board, (compiler.version, *command))
        out = project / "build" / toolchain
        elf = out / "firmware.elf"
        stamped = _stamped(out, key, elf)
        if stamped is not None:
            return _result(board, elf, toolchain, *stamped, built=False)
        version = compiler.version
        bound = _compile(project, board, compiler, elf, log)
    result = _result(board, elf, toolchain, version, bound, built=True)
    stamp = {
        "key": key,
        "elf_sha256": _sha256(elf),
        "version": version,
        "stack": None if bound is None else bound.to_dict(),
    }
    atomic_write(out / _STAMP, (json.dumps(stamp, indent=2) + "\n").encode())
    return result


def _board_of(project: Path) -> Board:
    for name in ("manifest.json", "board.toml", "linker.ld", "src", "include"):
        if not (project / name).exists():
            raise ToolchainError(
                f"no generated project: it has no {name}",
                where=str(project),
                hint="bnnmcu export MODEL --board NAME -o DIR",
            )
    return load_board(str(project / "board.toml"), exported=True)


def _gcc(board: Board) -> _Compiler:
    path = shutil.which(GCC)
    if path is None:
        raise MissingDependencyError(
            f"{GCC} is not installed",
            hint="apt install gcc-arm-none-eabi, or use --toolchain zig",
        )
    version = program_version(path)
    return _Compiler(
        "gcc",
        (path,),
        version,
        board.machine_flags,
        compile_only=STACK_FLAGS if reports_calls(version) else (),
        libraries=("-lgcc",),
    )


def _zig(board: Board) -> _Compiler:
    command = zig_command()
    if command is None:
        raise MissingDependencyError(
            "zig is not installed",
            hint="pip install 'bnnmcu[sim]', or use --toolchain gcc",
        )
    version = package_version("ziglang") or program_version(command[0])
    return _Compiler(
        "zig",
        (*command, "cc"),
        version,
        CORES[board.core].zig,
        # zig adds traps for undefined behaviour; the other builds have none.
        compile_only=("-fno-sanitize=all",),
        # What a Cortex-M0 has no instruction for.
        libraries=("-lcompiler_rt",),
    )


def _compile(
    project: Path, board: Board, compiler: _Compiler, elf: Path, log: Log | None
) -> StackBound | None:
    sources = sorted((project / "src").glob("*.c"))
    if not sources:
        raise ToolchainError("there is nothing to compile", where=str(project / "src"))
    flags = [flag for flag in board.compile_flags if flag not in board.machine_flags]
    elf.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=elf.parent) as name:
        scratch = Path(name)
        base = [*compiler.command, *compiler.machine, *compiler.compile_only, *flags]
        objects = [str(scratch / f"{source.stem}.o") for source in sources]
        # Relative paths, so that messages read well.
        commands = [
            [*base, "-Iinclude", "-c", f"src/{source.name}", "-o", target]
            for source, target in zip(sources, objects, strict=True)
        ]
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            # In order, so that the same mistake gives the same message.
            for _ in pool.map(lambda command: _step(project, compiler, command, log), commands):
                pass
        linked = scratch / "firmware.elf"
        link = [*compiler.command, *compiler.machine, *LINK_FLAGS, *objects]
        _step(project, compiler, [*link, *compiler.libraries, "-o", str(linked)], log)
        try:
            stamp(linked)
        except ValueError as error:
            raise ToolchainError(
                f"its checksum cannot be written: {error}",
                where=str(project),
                hint="export the project again: its linker script is an older one",
            ) from error
        bound = None
        if set(STACK_FLAGS) <= set(compiler.compile_only):
            bound = stack_bound(map(Path, objects), board)
            _check_stack(project, bound, read_firmware(linked))
        linked.replace(elf)
    return bound


def _check_stack(project: Path, bound: StackBound, firmware: Firmware) -> None:
    reserved = _reserved(firmware)
    if bound.bytes is not None and bound.bytes > reserved:
        raise ToolchainError(
            f"the stack can take {bound.bytes:,} bytes, and {reserved:,} are reserved",
            where=str(project),
            hint=f"deepest: {' > '.join(bound.path)}, then {bound.interrupt} bytes for interrupts",
        )


def _reserved(firmware: Firmware) -> int:
    symbols = firmware.symbols
    return symbols.get("bnn_stack_top", 0) - symbols.get("bnn_stack_bottom", 0)


def _step(project: Path, compiler: _Compiler, command: Sequence[str], log: Log | None) -> None:
    code, output = run(command, cwd=project, log=log)
    if code != 0:
        raise ToolchainError(
            f"{compiler.name} failed:\n  {error_lines(output)}",
            where=str(project),
            hint="see all of its output: bnnmcu build -v",
        )


def _key(project: Path, board: Board, settings: Sequence[str]) -> str:
    """A hash of everything that the ELF depends on."""
    digest = hashlib.sha256()
    for setting in (*settings, *board.compile_flags):
        digest.update(setting.encode() + b"\0")
    inputs = [*project.glob("src/*.c"), *project.glob("include/*.h")]
    inputs += [project / name for name in ("linker.ld", "platformio.ini", *_SCRIPTS)]
    for path in sorted(inputs):
        if path.is_file():
            digest.update(path.relative_to(project).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _stamped(out: Path, key: str, elf: Path) -> tuple[str, StackBound | None] | None:
    """The compiler's version and the stack's bound, if these inputs gave the ELF last time."""
    try:
        stamp = json.loads((out / _STAMP).read_text(encoding="utf-8"))
        same = stamp["key"] == key and stamp["elf_sha256"] == _sha256(elf)
        stack = stamp["stack"]
        bound = None if stack is None else StackBound.from_dict(stack)
        return (str(stamp["version"]), bound) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # never built, or damaged: build


def _result(
    board: Board,
    elf: Path,
    toolchain: str,
    version: str,
    bound: StackBound | None,
    *,
    built: bool,
) -> BuildResult:
    firmware = read_firmware(elf)
    return BuildResult(
        elf=elf,
        flash_bytes=firmware.flash_bytes(board),
        ram_bytes=firmware.ram_bytes(board),
        stack_bytes=_reserved(firmware),
        stack_bound=bound,
        toolchain=toolchain,
        version=version,
        built=built,
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
