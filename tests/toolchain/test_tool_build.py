"""Building: sizes, repetition, and what fails how."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from echo_rig import ECHO_MAIN, STACK_BYTES, build_echo, needs, write_echo_project

from bnnmcu.boards import Board
from bnnmcu.errors import MissingDependencyError, ToolchainError, UsageError
from bnnmcu.resources import templates
from bnnmcu.toolchain import compiler
from bnnmcu.toolchain.compiler import BuildResult, build_firmware
from bnnmcu.toolchain.elf import read_firmware

DIRECT = ["gcc", "zig"]
WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-ffreestanding"]


@pytest.mark.parametrize("toolchain", DIRECT)
def test_layout(echo: Callable[[str], BuildResult], board: Board, toolchain: str) -> None:
    built = echo(toolchain)
    firmware = read_firmware(built.elf)
    stack, reset = firmware.vectors
    assert firmware.segments[0].load == board.flash.origin
    # At the bottom of RAM, so that an overflow leaves RAM.
    assert firmware.symbols["bnn_stack_bottom"] == board.ram.origin
    assert stack == board.ram.origin + STACK_BYTES
    assert firmware.describe(reset).endswith("(bnn_reset + 0)")
    assert built.stack_bytes == STACK_BYTES
    assert built.flash_bytes == firmware.flash_bytes(board) < 8192
    assert STACK_BYTES + 2048 < built.ram_bytes < STACK_BYTES + 2048 + 512


@pytest.mark.parametrize("toolchain", DIRECT)
def test_sizes_are_those_of_the_sections(
    echo: Callable[[str], BuildResult], toolchain: str
) -> None:
    """Against another reader of the same file, where binutils is there."""
    needs("gcc")
    built = echo(toolchain)
    shown = subprocess.run(
        ["arm-none-eabi-size", "-A", str(built.elf)], capture_output=True, text=True, check=True
    ).stdout
    sizes = {}
    for line in shown.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1].isdigit():
            sizes[fields[0]] = int(fields[1])
    in_flash = (".vectors", ".text", ".rodata", ".data", ".checksum")
    flash = sum(sizes.get(name, 0) for name in in_flash)
    assert built.flash_bytes == flash
    assert built.ram_bytes == sum(sizes.get(name, 0) for name in (".stack", ".data", ".bss"))


def test_nothing_changed_nothing_built(tmp_path: Path, board: Board) -> None:
    first = build_echo(tmp_path, board, "gcc")
    stamp = first.elf.stat().st_mtime_ns
    again = build_firmware(tmp_path, "gcc")
    assert (first.built, again.built) == (True, False)
    assert first.elf.stat().st_mtime_ns == stamp
    assert again.flash_bytes == first.flash_bytes
    assert again.version == first.version

    with (tmp_path / "src" / "main.c").open("a") as stream:
        stream.write("\n/* changed */\n")
    assert build_firmware(tmp_path, "gcc").built
    first.elf.write_bytes(b"damaged")
    assert build_firmware(tmp_path, "gcc").built
    (tmp_path / "build" / "gcc" / "build.json").write_text("{")
    assert build_firmware(tmp_path, "gcc").built


@pytest.mark.parametrize("toolchain", DIRECT)
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("int main(void) { return missing; }\n", "missing"),
        ("extern int gone(void);\nint main(void) { return gone(); }\n", "gone"),
    ],
    ids=["compile", "link"],
)
def test_errors_show_their_first_line(
    tmp_path: Path, board: Board, toolchain: str, broken: str, message: str
) -> None:
    needs(toolchain)
    write_echo_project(tmp_path, board, main=broken)
    with pytest.raises(ToolchainError) as caught:
        build_firmware(tmp_path, toolchain)
    assert f"{toolchain} failed" in caught.value.what
    assert message in caught.value.what
    assert not list((tmp_path / "build" / toolchain).iterdir())


@pytest.mark.parametrize("toolchain", DIRECT)
@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("const volatile unsigned char big[600000] = {1};\n", "FLASH"),
        ("volatile unsigned char big[131072];\n", "RAM"),
    ],
    ids=["flash", "ram"],
)
def test_too_large_is_refused(
    tmp_path: Path, board: Board, toolchain: str, extra: str, message: str
) -> None:
    needs(toolchain)
    kept = ECHO_MAIN.read_text().replace(
        "    bnn_port_init();", "    bnn_port_init();\n    big[0];"
    )
    write_echo_project(tmp_path, board, main=extra + kept)
    with pytest.raises(ToolchainError) as caught:
        build_firmware(tmp_path, toolchain)
    assert message in caught.value.what
    assert re.search("overflowed by|will not fit", caught.value.what)


@pytest.mark.parametrize("toolchain", DIRECT)
@pytest.mark.parametrize(("stack", "message"), [(256, "too little"), (2044, "multiple of 8")])
def test_unsound_stacks_are_refused(
    tmp_path: Path, board: Board, toolchain: str, stack: int, message: str
) -> None:
    needs(toolchain)
    write_echo_project(tmp_path, board, stack_bytes=stack)
    with pytest.raises(ToolchainError, match=message):
        build_firmware(tmp_path, toolchain)


def test_a_failed_build_keeps_the_last_good_one(tmp_path: Path, board: Board) -> None:
    good = build_echo(tmp_path, board, "gcc")
    before = good.elf.read_bytes()
    main = tmp_path / "src" / "main.c"
    main.write_text("#error no\n")
    with pytest.raises(ToolchainError, match="#error no"):
        build_firmware(tmp_path, "gcc")
    assert good.elf.read_bytes() == before
    main.write_bytes(ECHO_MAIN.read_bytes())
    assert not build_firmware(tmp_path, "gcc").built


def test_output_is_streamed(tmp_path: Path, board: Board) -> None:
    needs("gcc")
    main = ECHO_MAIN.read_text() + "\nstatic int never_used(void) { return 0; }\n"
    lines: list[str] = []
    build_firmware(write_echo_project(tmp_path, board, main=main), "gcc", log=lines.append)
    assert any("never_used" in line for line in lines)


@pytest.mark.parametrize(
    ("toolchain", "where", "hint"),
    [
        ("gcc", "shutil.which", "apt install gcc-arm-none-eabi"),
        ("zig", "zig_command", "bnnmcu[sim]"),
        ("platformio", "platformio.pio_command", "bnnmcu[flash]"),
    ],
)
def test_missing_toolchains_say_how_to_get_them(
    tmp_path: Path,
    board: Board,
    monkeypatch: pytest.MonkeyPatch,
    toolchain: str,
    where: str,
    hint: str,
) -> None:
    def nothing(*_: Any) -> None:
        return None

    target: Any = compiler
    *path, name = where.split(".")
    for step in path:
        target = getattr(target, step)
    monkeypatch.setattr(target, name, nothing)
    write_echo_project(tmp_path, board)
    with pytest.raises(MissingDependencyError) as caught:
        build_firmware(tmp_path, toolchain)
    assert hint in str(caught.value)


def test_not_a_project(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="no generated project"):
        build_firmware(tmp_path, "gcc")
    with pytest.raises(UsageError, match="unknown toolchain 'make'"):
        build_firmware(tmp_path, "make")


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "damaged"), (b"\x7fELF" + bytes(60), "damaged"), (b"not an elf", "damaged")],
)
def test_damaged_elf(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.elf"
    path.write_bytes(data)
    with pytest.raises(ToolchainError, match=message):
        read_firmware(path)


def test_truncated_elf(tmp_path: Path, echo: Callable[[str], BuildResult]) -> None:
    data = echo("gcc").elf.read_bytes()
    path = tmp_path / "x.elf"
    for size in range(4, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:size])
        with pytest.raises(ToolchainError):
            read_firmware(path)


def test_elf_of_another_machine(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="cannot be read"):
        read_firmware(tmp_path / "none.elf")
    true = shutil.which("true")
    if true is None:
        pytest.skip("there is no program 'true' to be refused")
    if not Path(true).read_bytes().startswith(b"\x7fELF"):
        pytest.skip("programs here are no ELF files")
    with pytest.raises(ToolchainError, match="not a firmware"):
        read_firmware(Path(true))


@pytest.mark.parametrize("toolchain", ["gcc", "clang", "zig"])
def test_port_is_clean_under_strict_warnings(tmp_path: Path, board: Board, toolchain: str) -> None:
    command = {
        "gcc": ["arm-none-eabi-gcc", *board.machine_flags],
        "clang": ["clang", "--target=arm-none-eabi", *board.machine_flags],
        "zig": [],
    }[toolchain]
    if toolchain == "clang" and shutil.which("clang") is None:
        pytest.skip("clang is not installed")
    needs(toolchain)
    if toolchain == "zig":
        zig = compiler._zig(board)
        command = [*zig.command, *zig.machine, *zig.compile_only]
    write_echo_project(tmp_path, board)
    for optimise in ("-O0", "-O3"):
        for source in sorted((tmp_path / "src").glob("*.c")):
            done = subprocess.run(
                [*command, *WARNINGS, optimise, "-Iinclude", "-c", str(source), "-o", "x.o"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("toolchain", DIRECT)
def test_memory_functions_do_not_call_themselves(
    tmp_path: Path, board: Board, toolchain: str
) -> None:
    """A compiler that sees a copying loop likes to call memcpy, here: itself."""
    from elftools.elf.elffile import ELFFile
    from elftools.elf.relocation import RelocationSection

    needs(toolchain)
    used = compiler._gcc(board) if toolchain == "gcc" else compiler._zig(board)
    flags = [flag for flag in board.compile_flags if flag not in board.machine_flags]
    target = tmp_path / "memory.o"
    with templates().joinpath("port", "bnn_memory.c").open("rb") as stream:
        (tmp_path / "memory.c").write_bytes(stream.read())
    subprocess.run(
        [*used.command, *used.machine, *used.compile_only, *flags, "-c", "memory.c"],
        cwd=tmp_path,
        check=True,
    )
    with target.open("rb") as stream:
        elf = ELFFile(stream)
        called = {
            elf.get_section(section["sh_link"]).get_symbol(relocation["r_info_sym"]).name
            for section in elf.iter_sections()
            if isinstance(section, RelocationSection) and section.name.startswith(".rel.text")
            for relocation in section.iter_relocations()
        }
        table: Any = elf.get_section_by_name(".symtab")
        defined = {symbol.name for symbol in table.iter_symbols()}
    assert {"memcpy", "memmove", "memset", "memcmp"} <= defined
    assert not called
