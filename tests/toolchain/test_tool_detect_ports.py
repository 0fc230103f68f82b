"""Which port is meant, who may use it, and what a board's owner reports."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from link_rig import INFO
from needs import need_emulator, need_toolchain
from small_network import small_network

from bnnmcu.backend.project import write_project
from bnnmcu.boards import all_boards, load_board
from bnnmcu.cli.boards import command as boards
from bnnmcu.cli.doctor import command as doctor
from bnnmcu.errors import DataError, DeviceMismatchError, LinkError, LinkTimeoutError
from bnnmcu.evidence import HARDWARE, read_report
from bnnmcu.link import access, transport
from bnnmcu.link.access import port_holder, port_problem, udev_problem
from bnnmcu.link.identify import identify
from bnnmcu.link.ports import ADAPTERS, candidates, list_ports, resolve_port
from bnnmcu.passes import lower

STLINK = "0483:374b"


def port(device: str, usb_id: str | None = None, serial: str | None = None) -> SimpleNamespace:
    """As pyserial's ``comports()`` gives it."""
    vid, pid = (int(part, 16) for part in usb_id.split(":")) if usb_id else (None, None)
    return SimpleNamespace(device=device, vid=vid, pid=pid, serial_number=serial, description="n/a")


NUCLEO = port("/dev/ttyACM0", STLINK, "066DFF01")
OTHER_NUCLEO = port("/dev/ttyACM1", STLINK, "066DFF02")
FTDI = port("/dev/ttyUSB0", "0403:6001", "A10K")
BUILT_IN = port("/dev/ttyS0")


def scan(*ports: SimpleNamespace) -> Callable[[], Iterable[Any]]:
    return lambda: ports


def test_ports_are_listed_by_name() -> None:
    found = list_ports(scan(FTDI, NUCLEO, BUILT_IN))
    assert [str(item) for item in found] == [
        "/dev/ttyACM0 (0483:374b, serial 066DFF01)",
        "/dev/ttyS0",
        "/dev/ttyUSB0 (0403:6001, serial A10K)",
    ]
    assert found[0].description == ""
    assert [item.device for item in candidates(found, [STLINK])] == ["/dev/ttyACM0"]
    # A board without a bridge may be on any adapter, but on no other board's bridge.
    assert [item.device for item in candidates(found, [])] == ["/dev/ttyUSB0"]


def test_adapters_are_no_board_of_ours() -> None:
    ids = {usb_id for board in all_boards() for usb_id in board.usb.ids}
    assert not ids & set(ADAPTERS)


@pytest.mark.parametrize(
    ("request_", "ids", "ports", "device"),
    [
        ("auto", [STLINK], (NUCLEO, FTDI, BUILT_IN), "/dev/ttyACM0"),
        ("auto", ["0483:374e", STLINK], (NUCLEO, FTDI), "/dev/ttyACM0"),
        ("auto", [], (NUCLEO, FTDI, BUILT_IN), "/dev/ttyUSB0"),
        ("serial:066DFF02", [STLINK], (NUCLEO, OTHER_NUCLEO), "/dev/ttyACM1"),
        ("serial:A10K", [STLINK], (NUCLEO, FTDI), "/dev/ttyUSB0"),
        # Names and URLs are the user's business, whether or not they are there.
        ("/dev/ttyACM7", [STLINK], (NUCLEO,), "/dev/ttyACM7"),
        ("socket://host:2000", [], (), "socket://host:2000"),
    ],
)
def test_the_port_that_is_meant(
    request_: str, ids: list[str], ports: tuple[SimpleNamespace, ...], device: str
) -> None:
    assert resolve_port(request_, ids, "a board", scan=scan(*ports)) == device


@pytest.mark.parametrize(
    ("request_", "ids", "ports", "says"),
    [
        ("auto", [STLINK], (), ["no port for a board", STLINK, "no serial port is there"]),
        ("auto", [STLINK], (FTDI,), ["no port for a board", "/dev/ttyUSB0 (0403:6001"]),
        ("auto", [], (NUCLEO,), ["a USB-serial adapter", "/dev/ttyACM0"]),
        (
            "auto",
            [STLINK],
            (OTHER_NUCLEO, NUCLEO),
            [
                *("2 ports may be a board", "serial 066DFF01", "serial 066DFF02"),
                *("--port /dev/ttyACM0", "--port serial:066DFF01"),
            ],
        ),
        (
            "auto",
            [STLINK],
            (port("COM3", STLINK), port("COM4", STLINK)),
            ["2 ports may be", "--port COM3"],
        ),
        # Never another one in its place.
        ("serial:066DFF02", [STLINK], (NUCLEO,), ["no port has that serial number", "066DFF01"]),
        (
            "serial:1",
            [],
            (port("COM3", STLINK, "1"), port("COM4", STLINK, "1")),
            ["2 ports have that serial number", "COM3"],
        ),
    ],
)
def test_no_port_or_several(
    request_: str, ids: list[str], ports: tuple[SimpleNamespace, ...], says: list[str]
) -> None:
    with pytest.raises(LinkError) as caught:
        resolve_port(request_, ids, "a board", scan=scan(*ports))
    for part in says:
        assert part in str(caught.value)
    if "--port COM3" in says:
        assert "serial:" not in str(caught.value)  # they have no number to name


# --- permissions -------------------------------------------------------------------------------

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no groups of ports")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has udev and /proc")


@POSIX
@pytest.mark.parametrize(
    ("mode", "group", "members", "says"),
    [
        (0o660, "dialout", (), "sudo usermod -aG dialout me, then log out"),
        (0o660, "uucp", ("you",), "sudo usermod -aG uucp me"),
        (0o660, "dialout", ("me",), "you are in the group dialout now, log out and in again"),
        (0o600, "dialout", (), "for root alone"),
        (0o660, "root", (), "for root alone"),
    ],
)
def test_a_port_that_may_not_be_opened(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mode: int,
    group: str,
    members: tuple[str, ...],
    says: str,
) -> None:
    device = tmp_path / "ttyACM0"
    device.touch()
    device.chmod(mode)
    monkeypatch.setattr(access.os, "access", lambda path, mode: False)
    monkeypatch.setattr(access, "_group", lambda gid: (group, members))
    monkeypatch.setattr(access, "_user", lambda: "me")
    assert says in str(port_problem(str(device)))


@POSIX
def test_a_port_that_may_be_opened_or_is_gone(tmp_path: Path) -> None:
    device = tmp_path / "ttyACM0"
    assert "No such file" in str(port_problem(str(device)))
    device.touch()
    assert port_problem(str(device)) is None


@LINUX
@pytest.mark.parametrize(
    ("rule", "ids", "missing"),
    [
        ('ATTRS{idVendor}=="0483", ATTRS{idProduct}=="374b", MODE="660"', [STLINK], None),
        ('ATTRS{idVendor}=="0483", \\\n  MODE="660"', [STLINK], None),
        ('ATTRS{idVendor}=="0D28", TAG+="uaccess"', ["0d28:0204"], None),
        ('# ATTRS{idVendor}=="0483", MODE="660"', [STLINK], "0483"),
        ('ATTRS{idVendor}=="0483", ENV{ID_MM_DEVICE_IGNORE}="1"', [STLINK], "0483"),
        ('ATTRS{idVendor}=="0483", MODE="660"', [STLINK, "0d28:0204"], "0d28"),
        ("", [], None),
    ],
)
def test_udev_rules(tmp_path: Path, rule: str, ids: list[str], missing: str | None) -> None:
    (tmp_path / "50-probes.rules").write_text(rule + "\n")
    (tmp_path / "README").write_text('ATTRS{idVendor}=="0483", MODE="660"\n')
    found = udev_problem(ids, [tmp_path, tmp_path / "absent"])
    assert (found is None) == (missing is None)
    if missing:
        assert f"vendor {missing}:" in str(found)
        assert "platformio" in str(found)


@LINUX
def test_who_has_a_port_open(tmp_path: Path) -> None:
    device = tmp_path / "ttyACM0"
    device.touch()
    for number, target in ((4, "null"), (123, "ttyACM0")):
        folder = tmp_path / "proc" / str(number) / "fd"
        folder.mkdir(parents=True)
        (folder / "3").symlink_to(tmp_path / target)
        (folder.parent / "comm").write_text("minicom\n")
    assert port_holder(str(device), tmp_path / "proc") == "minicom (process 123)"
    assert port_holder(str(tmp_path / "ttyACM9"), tmp_path / "proc") is None


@LINUX
def test_a_busy_port_says_by_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "port_holder", lambda url: "minicom (process 123)")
    error = transport._open_error("/dev/ttyACM0", OSError(16, "Device or resource busy"))
    assert "busy: minicom (process 123) has it open" in error.what


# --- doctor ------------------------------------------------------------------------------------


@pytest.fixture
def doctored(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs ``doctor`` on a computer with these ports."""

    def run(ports: tuple[SimpleNamespace, ...], *options: str) -> Any:
        monkeypatch.setattr("serial.tools.list_ports.comports", lambda: list(ports))
        monkeypatch.setattr(access, "port_problem", lambda device: None)
        monkeypatch.setattr(access, "udev_problem", lambda ids: f"rules for {sorted(ids)}")
        done = CliRunner().invoke(doctor, options, env={"COLUMNS": "250"})
        assert done.exit_code in (0, 1), done.output
        return done

    return run


def test_doctor_says_what_ports_may_be(doctored: Callable[..., Any]) -> None:
    found = json.loads(doctored((NUCLEO, FTDI, BUILT_IN), "--json").stdout)
    acm, built_in, usb = found["ports"]
    assert "nucleo_f446re" in acm["boards"]
    assert acm["serial_number"] == "066DFF01"
    assert (usb["boards"], usb["adapter"]) == ([], "FTDI FT232R adapter")
    assert (built_in["boards"], built_in["adapter"], built_in["answer"]) == ([], None, None)
    # An adapter needs no rule for a probe.
    assert found["udev"] == f"rules for ['{STLINK}']"


def test_doctor_for_people(doctored: Callable[..., Any]) -> None:
    shown = doctored((NUCLEO, FTDI)).output
    assert "066DFF01" in shown
    assert "may be " in shown
    assert "doctor --hello" in shown
    assert "a cable that carries data" in doctored(()).output


def test_doctor_asks_who_is_there(
    doctored: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answer(device: str) -> Any:
        asked.append(device)
        if device == "/dev/ttyUSB0":
            raise LinkTimeoutError("nothing answers", where=device)
        return INFO

    monkeypatch.setattr("bnnmcu.link.identify.identify", answer)
    done = doctored((NUCLEO, FTDI, BUILT_IN), "--hello", "--json")
    acm, built_in, usb = json.loads(done.stdout)["ports"]
    assert acm["answer"] == "nucleo_f446re, which runs S64"
    assert (usb["answer"], usb["problem"]) == (None, "nothing answers")
    assert built_in["answer"] is None
    # Only where a board may be: bytes could upset anything else.
    assert asked == ["/dev/ttyACM0", "/dev/ttyUSB0"]


@POSIX
def test_silence_is_no_board() -> None:
    master, slave = os.openpty()
    try:
        from bnnmcu.link.timing import Timing

        with pytest.raises(LinkTimeoutError, match="nothing answers"):
            identify(os.ttyname(slave), timing=Timing(hello=(0.05,)))
    finally:
        os.close(master)
        os.close(slave)


# --- reports -----------------------------------------------------------------------------------


def sound_report() -> dict[str, Any]:
    board = load_board("nucleo_f446re")
    return {
        "format": "bnnmcu-board-report",
        "version": 1,
        "bnnmcu": "0.1.0",
        "date": "2026-01-31",
        "level": HARDWARE,
        "board": {"name": board.name},
        "board_file": board.source,
        "hello": {"board": board.name, "model": "S64", "clock_hz": 180_000_000},
        "project": {"edited": []},
        "verify": {"images": 200, "logits": 2000, "differing_logits": 0, "differing_words": 0},
    }


def test_a_report_is_evidence() -> None:
    finding = read_report(sound_report(), "r.json")
    assert (finding.board, finding.level, finding.shipped) == ("nucleo_f446re", HARDWARE, True)
    assert "S64, 200 images, 2000 logits, 0 different, 180 MHz" in finding.text
    other = sound_report() | {"board_file": "another"}
    assert not read_report(other, "r.json").shipped


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("format", "x", "not a bnnmcu-board-report"),
        ("version", 2, "of version 1"),
        ("version", True, "'version' is missing"),
        ("verify", None, "'verify' is missing"),
        ("board.name", 3, "'name' is missing"),
        # Figures that do not bear out what is claimed.
        ("verify.differing_logits", 1, "its figures show 'nothing"),
        ("verify.differing_words", 1, "its figures show 'nothing"),
        ("verify.logits", 0, "its figures show 'nothing"),
        ("project.edited", ["src/bnn.c"], "its figures show 'nothing"),
        ("hello.board", "netduinoplus2", "its figures show 'nothing"),
        ("hello.clock_hz", 0, "its figures show 'emulated'"),
        ("verify.images", 199, "with 199 images, which takes 200"),
        ("level", "sure", "it claims 'sure'"),
    ],
)
def test_a_report_that_is_none(path: str, value: object, says: str) -> None:
    report = sound_report()
    *tables, key = path.split(".")
    table = report
    for name in tables:
        table = table[name]
    table[key] = value
    with pytest.raises(DataError, match=r"r\.json") as caught:
        read_report(report, "r.json")
    assert says in str(caught.value)


@pytest.mark.parametrize("report", [None, [], "x", 3])
def test_a_report_that_is_no_object(report: object) -> None:
    with pytest.raises(DataError, match="no board report"):
        read_report(report, "r.json")


def test_a_board_reports(tmp_path: Path) -> None:
    need_emulator("unicorn")
    need_toolchain("gcc")
    folder, path = tmp_path / "project", tmp_path / "r.json"
    write_project(lower(small_network()).graph, load_board("nucleo_f446re"), folder)
    options = ("--emulate", "unicorn", "--data", "noise", "-n", "3", "--notes", "rev C")
    done = CliRunner().invoke(boards, ["report", str(folder), *options, "-o", str(path)])
    assert done.exit_code == 0, done.output
    assert "evidence for: emulated" in done.stdout
    written = path.read_text("utf-8")
    report = json.loads(written)
    assert (report["verify"]["images"], report["verify"]["exact"]) == (3, True)
    assert (report["notes"], report["hello"]["clock_hz"]) == ("rev C", 0)
    assert (report["hello"]["reset"], report["hello"]["flash_checked"]) == ("not known", True)
    assert report["tools"]["unicorn"]
    assert str(tmp_path) not in written, "a path of its owner"
    assert "serial ports" not in report["tools"]
    shown = CliRunner().invoke(boards, ["evidence", str(path), "--json"])
    (finding,) = json.loads(shown.stdout)
    assert (finding["level"], finding["shipped"]) == ("emulated", True)
    assert "3 images, 12 logits, 0 different, emulated" in finding["text"]


def test_a_report_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("{")
    done = CliRunner().invoke(boards, ["evidence", str(path)])
    assert isinstance(done.exception, DataError)
    assert "not a JSON file" in str(done.exception)


def test_another_board_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same network on another board would be credited to the wrong one."""
    from bnnmcu import target

    class FakeDevice:
        info = INFO
        baud = 115200

        def __init__(self, *_: object, **__: object) -> None: ...
        def last_fault(self) -> None: ...
        def __enter__(self) -> FakeDevice:
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(target, "Device", FakeDevice)
    monkeypatch.setattr(
        target, "open_port", lambda *_: SimpleNamespace(name="COM3", close=lambda: None)
    )
    for name, refused in (("nucleo_f446re", False), ("netduinoplus2", True)):
        project: Any = SimpleNamespace(
            board=load_board(name), sha256=b"", check_answers=lambda: None
        )
        options = target.TargetOptions(port="COM3")
        if refused:
            with (
                pytest.raises(DeviceMismatchError, match="the project is for 'netduinoplus2'"),
                target.open_target(project, options, print),
            ):
                pytest.fail("it must not open")
        else:
            with target.open_target(project, options, print) as opened:
                assert opened.device.info is INFO
