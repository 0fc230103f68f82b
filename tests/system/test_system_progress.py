"""Progress for people and for scripts: rates that do not lie, and output that can be parsed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from needs import need_digits, need_emulator

from bnnmcu import errors
from bnnmcu.attack.campaign import Progress
from bnnmcu.cli import output
from bnnmcu.cli.campaigns import campaign_lanes
from bnnmcu.cli.progress import Display, JsonDisplay, PlainDisplay, link_text
from bnnmcu.link.stats import LinkStats
from bnnmcu.target import Target

ROOT = Path(__file__).resolve().parents[2]
ERRORS = (ROOT / "docs" / "ERRORS.md").read_text(encoding="utf-8")


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# Seconds that pass, and the done that is then told; an earlier session did 50 of 200.
_STEADY = [(1.0, 60), (1.0, 70), (1.0, 80)]


@pytest.mark.parametrize(
    ("steps", "silence", "expected", "rate", "eta"),
    [
        ([], 0.0, None, None, None),
        # 14 images a second is what the line can carry: known before anything came.
        ([], 0.0, 15.0, None, 10.0),
        # What an earlier session did took this one no time.
        (_STEADY, 0.0, 15.0, 10.0, 12.0),
        # Between two lots nothing is wrong; after as long as all of it, silence counts.
        (_STEADY, 2.9, None, 10.0, 12.0),
        (_STEADY, 27.0, None, 1.0, 120.0),
        # Several answers in one read are no rate yet.
        ([(0.001, 66)], 0.0, 15.0, None, 134 / 15),
        # Only the last half minute counts, however slow it was before.
        ([(600.0, 60), *[(1.0, 60 + 2 * i) for i in range(1, 61)]], 0.0, None, 2.0, 10.0),
        ([(10.0, 200)], 500.0, None, 15.0, 0.0),
    ],
)
def test_a_rate_is_of_this_session(
    steps: list[tuple[float, int]],
    silence: float,
    expected: float | None,
    rate: float | None,
    eta: float | None,
) -> None:
    clock = Clock()
    lane = Display(clock=clock).lane("board", expected=expected)
    lane.begin("clean", 200, 50)
    for seconds, done in steps:
        clock.now += seconds
        lane.update(done)
    clock.now += silence
    assert lane.rate == (rate if rate is None else pytest.approx(rate))
    assert lane.eta == (eta if eta is None else pytest.approx(eta))


def test_a_case_that_follows_starts_with_the_rate_of_the_board() -> None:
    clock = Clock()
    display = Display(clock=clock)
    board, crafting = display.lane("board", board=True), display.lane("crafting")
    for lane in (board, crafting):
        lane.begin("fgsm", 100)
        clock.now += 10.0
        lane.update(100)
        lane.begin("pgd", 100)
    assert (board.rate, board.eta) == (10.0, 10.0)
    # Another attack takes another time to craft.
    assert (crafting.rate, crafting.eta) == (None, None)


def test_the_line_says_how_fast_it_can_be() -> None:
    info = SimpleNamespace(input_shape=(28, 28, 1), max_seeds=20, field=False)
    device: Any = SimpleNamespace(info=info)
    target = Target(device, False, "board", None, pace=115200)
    one = target.line_rate(1)
    assert one is not None
    assert 14.0 < one < 115200 / 10 / 784
    # Seeds take 8 bytes each, and what does not fit into a request takes the image again.
    assert target.line_rate(20) == pytest.approx(one * 810 / (810 + 19 * 8), rel=0.01)
    assert target.line_rate(40) == pytest.approx(target.line_rate(20) / 2)
    assert Target(device, True, "emulator", None).line_rate(1) is None


@pytest.mark.parametrize(
    ("stats", "text"),
    [
        (None, ""),
        (LinkStats(requests=10_000, stale=3, bytes_out=9, bytes_in=9), ""),
        (LinkStats(retries=1, timeouts=1), "1 retry, 1 timeout"),
        (
            LinkStats(retries=1234, timeouts=2, bad_frames=3, reported=4, reconnects=5),
            "1,234 retries, 2 timeouts, 3 corrupt replies, 4 corrupt requests, 5 reconnects",
        ),
    ],
)
def test_counters_are_shown_once_they_are_not_zero(stats: LinkStats | None, text: str) -> None:
    assert link_text(stats) == text


def test_text_is_for_long_work_only(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    stats = LinkStats()
    display = PlainDisplay(every=0.0, clock=clock)
    show = campaign_lanes(display, 2, "board", link=lambda: stats, expected=14.0)

    def answer(attack: str, levels: int, seconds: float, counts: list[int]) -> None:
        for done in counts:
            show(Progress(attack, levels, "ask", done, 40))
            clock.now += seconds

    show(Progress("clean", 0, "craft", 0, 40))
    show(Progress("clean", 0, "craft", 40, 40))
    answer("clean", 0, 0.05, [0, 10, 20, 30, 40])
    assert capsys.readouterr().err == ""
    show(Progress("fgsm", 76, "craft", 40, 40))  # by an earlier session: nothing to show
    answer("fgsm", 76, 1.0, [20, 30])
    stats.retries = 2
    display.tick()
    answer("fgsm", 76, 1.0, [40])
    assert capsys.readouterr().err.splitlines() == [
        "board: fgsm 76/255 (2 of 2) 30/40, 10.0 images/s, 0:01 left; 2 retries",
        "board: fgsm 76/255 (2 of 2) 40/40, 10.0 images/s, in 0:02; 2 retries",
    ]


# --- for scripts --------------------------------------------------------------------------------


def _events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def _documented(table: str) -> list[str]:
    """First cells of a table of docs/ERRORS.md: the one with this header."""
    rows = ERRORS.split(f"{table}\n")[1].splitlines()[1:]
    cells = []
    for row in rows:
        if not row.startswith("|"):
            break
        cells += re.findall(r"`(\w+)`", row.split("|")[1])
    return cells


def test_a_stall_is_seen_in_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_mode", "json")
    clock = Clock()
    display = JsonDisplay(every=0.0, clock=clock)
    stats = LinkStats()
    lane = display.lane("board", board=True, link=lambda: stats)
    lane.begin("clean", 100)
    clock.now += 5.0
    stats.timeouts = 3
    display.tick()
    first, second = _events(capsys.readouterr().err)
    assert (first["done"], first["link"]["timeouts"]) == (0, 0)
    assert (second["done"], second["link"]["timeouts"]) == (0, 3)
    lane.update(100)
    display.tick()  # finished: not told again
    assert [event["done"] for event in _events(capsys.readouterr().err)] == [100]


def test_work_that_fails_says_how_far_it_came(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_mode", "json")
    failed = errors.LinkTimeoutError("no answer")
    display = JsonDisplay(every=0.0, clock=Clock())
    crafting, board = display.lane("crafting"), display.lane("board", board=True)
    for lane, done in ((crafting, 100), (board, 37)):
        lane.begin("pgd", 100)
        lane.update(done)
    with pytest.raises(errors.LinkTimeoutError), display:
        raise failed
    output.report_error(failed, as_json=False)
    events = _events(capsys.readouterr().err)
    told = [(event["event"], event.get("lane"), event.get("done")) for event in events]
    assert told == [
        ("progress", "crafting", 0),
        ("progress", "crafting", 100),
        ("progress", "board", 0),
        ("progress", "board", 37),
        ("error", None, None),
        ("end", None, None),
    ]


def test_json_lines_are_all_there_is(shipped: Callable[[str], Path], cli, tmp_path: Path) -> None:
    need_digits()
    need_emulator("unicorn")
    command = (
        "evaluate", shipped("b64"), "--emulate", "unicorn", "--flaky", "corrupt=1/2000",
        "-o", tmp_path / "run.sqlite", "--progress", "json", "-n",
    )  # fmt: skip
    done = cli(*command, "20")
    assert done.returncode == 0, done.stderr
    events = _events(done.stderr)
    assert [event["event"] for event in (events[0], events[-1])] == ["start", "end"]
    assert events[0]["command"] == "evaluate"
    assert events[0]["arguments"] == list(map(str, (*command, "20")))
    assert events[-1]["exit_code"] == 0
    assert {event["event"] for event in events} <= set(_documented("| event | fields |"))
    progress = [event for event in events if event["event"] == "progress"]
    assert {(event["case"], event["total"]) for event in progress} == {("clean", 20)}
    assert [progress[0]["done"], progress[-1]["done"]] == [0, 20]
    assert progress[-1]["eta_s"] == 0
    assert progress[-1]["link"]["retries"] > 0
    assert "emulated" in progress[-1]["board"]
    documented = set(_documented("Fields of `progress`:\n\n| field | |"))
    assert set(progress[0]) == documented | {"event", "elapsed_s"}
    for field in fields(LinkStats):
        assert f"`{field.name}`" in ERRORS
    times = [event["elapsed_s"] for event in events]
    assert times == sorted(times)

    # An error is an event too: the file holds another run.
    done = cli(*command, "21")
    assert done.returncode == 13
    *_, error, end = _events(done.stderr)
    assert (error["event"], error["error"], error["exit_code"]) == ("error", "StoreError", 13)
    assert str(tmp_path) in error["where"]
    assert (end["event"], end["exit_code"]) == ("end", 13)


def test_quiet_leaves_warnings(shipped: Callable[[str], Path], cli, tmp_path: Path) -> None:
    need_digits()
    project = tmp_path / "b64"
    shutil.copytree(shipped("b64"), project)
    verify = ("evaluate", project, "-n", "20", "-o", tmp_path / "run.sqlite", "--quiet")
    done = cli(*verify)
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrong label" in done.stdout
    (project / "src" / "main.c").write_text("int main(void) { return 1; }\n")
    done = cli(*verify)
    assert done.stderr.startswith("warning: ")
    assert len(done.stderr.splitlines()) == 1
    done = cli("evaluate", project, "--quiet", "--progress", "json")
    assert done.returncode == 2
    assert "--quiet" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
@pytest.mark.parametrize("columns", [60, 100])
def test_bars_fit_the_terminal(
    shipped: Callable[[str], Path], cli, tmp_path: Path, columns: int
) -> None:
    need_digits()
    need_emulator("unicorn")
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = cli.environment() | {"TERM": "xterm"}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen(
        cli.command(
            "evaluate", shipped("b64"), "--emulate", "unicorn", "-n", "20",
            "--flaky", "corrupt=1/1000", "-o", tmp_path / "run.sqlite",
        ),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # Linux' way to say that the other side has closed
            break
        if not data:
            break
        shown += data
    os.close(ours)
    assert process.wait() == 0, shown
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    lines = [line for line in re.split(r"[\r\n]+", plain) if "20/20" in line]
    assert lines, plain
    assert max(map(len, lines)) <= columns
    for word in ("unicorn", ": clean", "images/s", " in 0:"):
        assert word in lines[-1]
    assert re.search(r"^  [\d,]+ retr", plain, re.MULTILINE)
    assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h")  # the cursor is back


# --- exit codes ---------------------------------------------------------------------------------


def test_exit_codes_are_as_documented() -> None:
    rows = re.findall(r"^\| (\d+) \| (\S+) \|", ERRORS, re.MULTILINE)
    told = {name.strip("`"): int(code) for code, name in rows if name.startswith("`")}
    classes = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.BnnmcuError)
    }
    assert told == classes
    assert {name for name in errors.__all__ if name.endswith("Error")} == set(classes)
    assert {int(code) for code, name in rows if not name.startswith("`")} == {0, output.INTERRUPTED}
