"""What is installed, and the choices that follow."""

from __future__ import annotations

import importlib.util
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bnnmcu.errors import MissingDependencyError
from bnnmcu.toolchain import detect
from bnnmcu.toolchain.process import error_lines, run

NONE: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("arm-none-eabi-gcc (15:12.2.rel1-1) 12.2.1 20221205", "12.2.1"),
        ("arm-none-eabi-gcc (Arm GNU Toolchain 13.3.Rel1 (Build x)) 13.3.1 20240614", "13.3.1"),
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", "7.2.22"),
        ("nothing to say", "unknown"),
    ],
)
def test_versions_are_read(tmp_path: Path, printed: str, version: str) -> None:
    if sys.platform == "win32":
        pytest.skip("the stand-in is a shell script")
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho '{printed}'\necho 'Copyright 1.2.3'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert detect.program_version(str(program)) == version


def pretend(monkeypatch: pytest.MonkeyPatch, programs: frozenset[str], packages: set[str]) -> None:
    real = importlib.util.find_spec

    def find(name: str) -> object:
        optional = {"ziglang", "unicorn", "platformio"}
        return (real("os") if name in packages else None) if name in optional else real(name)

    monkeypatch.setattr(
        detect.shutil, "which", lambda name: f"/x/{name}" if name in programs else None
    )
    monkeypatch.setattr(detect, "find_spec", find)


@pytest.mark.parametrize(
    ("programs", "packages", "toolchain"),
    [
        (frozenset({detect.GCC}), {"ziglang"}, "gcc"),
        (NONE, {"ziglang", "platformio"}, "zig"),
        (frozenset({"zig"}), {"platformio"}, "zig"),
        (NONE, {"platformio"}, "platformio"),
        (frozenset({"pio"}), set(), "platformio"),
    ],
)
def test_choice_of_toolchain(
    monkeypatch: pytest.MonkeyPatch, programs: frozenset[str], packages: set[str], toolchain: str
) -> None:
    pretend(monkeypatch, programs, packages)
    assert detect.default_toolchain() == toolchain


@pytest.mark.parametrize(
    ("programs", "emulator"),
    [(frozenset({detect.QEMU}), "qemu"), (NONE, "unicorn")],
)
def test_choice_of_emulator(
    monkeypatch: pytest.MonkeyPatch, programs: frozenset[str], emulator: str
) -> None:
    pretend(monkeypatch, programs, {"unicorn"})
    monkeypatch.setattr(detect.sys, "platform", "linux")
    assert detect.default_emulator() == emulator


def test_with_nothing_installed_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, NONE, set())
    with pytest.raises(MissingDependencyError, match=r"bnnmcu\[sim\]"):
        detect.default_toolchain()
    with pytest.raises(MissingDependencyError, match=r"bnnmcu\[sim\]"):
        detect.default_emulator()


def test_every_tool_says_how_to_get_it() -> None:
    tools = detect.detect()
    names = {tool.name for tool in tools}
    assert {"ziglang", "unicorn", "platformio", detect.GCC, detect.QEMU} <= names
    assert {"mlxtend", "C compiler", "serial ports"} <= names
    for tool in tools:
        assert tool.install.startswith(("pip install", "apt install", "plug"))
        assert tool.found == (tool.version is not None)


def named(name: str) -> detect.Tool:
    return next(tool for tool in detect.detect() if tool.name == name)


@pytest.mark.parametrize(
    ("devices", "version"),
    [([], None), (["/dev/ttyACM0", "COM5"], "/dev/ttyACM0, COM5")],
)
def test_serial_ports_are_listed(
    monkeypatch: pytest.MonkeyPatch, devices: list[str], version: str | None
) -> None:
    ports = [SimpleNamespace(device=device) for device in devices]
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: ports)
    tool = named("serial ports")
    assert (tool.version, tool.absent) == (version, "none")


def test_the_compiler_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("the stand-in is a shell script")
    program = tmp_path / "mycc"
    program.write_text("#!/bin/sh\necho 'mycc (Vendor 9.9.9) 3.2.1'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", f"{program} -g")
    tool = named("C compiler")
    assert (tool.version, tool.path) == ("3.2.1", f"{program} -g")
    monkeypatch.setenv("CC", str(tmp_path / "absent"))
    assert not named("C compiler").found
    assert "unset CC" in named("C compiler").install


def test_run_keeps_everything_and_streams_it(tmp_path: Path) -> None:
    lines: list[str] = []
    script = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"
    code, output = run([sys.executable, "-c", script], cwd=tmp_path, log=lines.append)
    assert code == 3
    assert sorted(output.splitlines()) == sorted(lines) == ["one", "two"]


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("a.c:1:1: warning: w\na.c:2:1: error: e\nmake: stop", "a.c:2:1: error: e"),
        ("x: undefined reference to `f'\ncollect2: error: ld returned 1", "undefined reference"),
        ("region `FLASH' overflowed by 3 bytes\nld returned 1 exit status", "overflowed by 3"),
        ("/usr/lib/gcc/x/../bin/ld: cannot find -lx", "ld: cannot find -lx"),
        ("no\nsign\nof\nwhat\nwas\nwrong", "wrong"),
        ("", "(no output)"),
    ],
)
def test_error_lines(output: str, shown: str) -> None:
    assert shown in error_lines(output)
    assert "ld returned" not in error_lines(output)
