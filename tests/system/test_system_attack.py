"""Attacks on an emulated board from the command line: expected figures, and resuming."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from needs import need_digits, need_emulator

from bnnmcu.errors import StoreError
from bnnmcu.store import Store
from bnnmcu.store.compare import ContentRow, content_rows

pytest.importorskip("torch", reason="crafting needs torch")

_RUN = ("-n", "60", "--eps", "0.3", "--attack", "fgsm", "--draws", "5", "--eot", "3")


def _content(path: Path) -> list[ContentRow]:
    """All images and answers of a store, without times and counts."""
    return list(content_rows(path))


def _answers(path: Path) -> int:
    """How many there are; also while the run goes on."""
    try:
        with Store.read(path) as store:
            return sum(len(one.labels) for one in store.judged())
    except StoreError:
        # Not made yet.
        assert not path.exists() or path.stat().st_size < 8192
        return 0


def test_a_killed_run_goes_on(shipped: Callable[[str], Path], cli, tmp_path: Path) -> None:
    need_digits()
    need_emulator("unicorn")
    project = shipped("s64")
    whole, broken = tmp_path / "whole.sqlite", tmp_path / "broken.sqlite"
    arguments = ("attack", project, "--emulate", "unicorn", *_RUN, "--json", "-o")
    done = cli(*arguments, whole)
    assert done.returncode == 0, done.stderr
    expected = json.loads(done.stdout)
    assert expected["complete"] is True

    answered = 0
    for _ in range(2):
        process = subprocess.Popen(
            cli.command(*arguments, broken),
            env=cli.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            if _answers(broken) > answered + 40:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run was over before it was killed"
        assert answered < _answers(broken) < 600
        answered = _answers(broken)

    done = cli(*arguments, broken)
    assert done.returncode == 0, done.stderr
    assert "going on" in done.stderr
    content = _content(broken)
    assert len(content) == 2 * 60 * 5
    assert content == _content(whole)  # no image lost, none asked twice
    resumed = json.loads(done.stdout)
    for case, same in zip(expected["cases"], resumed["cases"], strict=True):
        assert case["mean"] == same["mean"]

    with Store.read(broken) as store:
        sessions = store.sessions()
        for one in store.rows():
            (draw, *_) = one.draws
            assert draw.board
            assert draw.attempts is not None
            assert draw.latency_s is not None
            assert draw.ticks is not None
    assert [session.ended_at is None for session in sessions] == [True, True, False]
    assert sessions[-1].provenance["command"][0] == "attack"

    compared = cli("runs", "compare", whole, broken)
    assert compared.returncode == 0, compared.stdout + compared.stderr
    shown = cli("runs", "show", broken, "--json")
    assert json.loads(shown.stdout)["cases"][0]["mean"] == expected["cases"][0]["mean"]

    # A finished run is only shown again.
    again = cli(*arguments, broken)
    assert again.returncode == 0
    assert _content(broken) == content


def test_results_of_another_run_are_kept(
    shipped: Callable[[str], Path], cli, tmp_path: Path
) -> None:
    need_digits()
    store = tmp_path / "run.sqlite"
    arguments = ("attack", shipped("s64"), "--native", "-n", "10", "--attack", "fgsm", "-o", store)
    assert cli(*arguments, "--eps", "0.1", "--draws", "2").returncode == 0
    before = _content(store)
    done = cli(*arguments, "--eps", "0.1", "--draws", "3")
    assert done.returncode == 13
    assert "draws" in done.stderr
    assert str(store) in done.stderr
    assert _content(store) == before


def test_randomness_is_no_robustness(shipped: Callable[[str], Path], cli, tmp_path: Path) -> None:
    """PGD at 0.3 leaves next to nothing of S64, on the board and on fresh draws."""
    need_digits()
    need_emulator("unicorn")
    done = cli(
        "attack", shipped("s64"), "--emulate", "unicorn", "-n", "40", "--draws", "10",
        "--eps", "0.3", "--json", "-o", tmp_path / "run.sqlite",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    clean, fgsm, pgd = (case["mean"]["value"] for case in shown["cases"])
    assert clean > 0.9
    assert pgd <= 0.03
    assert pgd <= fgsm < 0.4
    assert shown["cases"][1]["levels"] == 76
    assert shown["cases"][1]["linf"] <= 76
    assert "randomised" in {flag["code"] for flag in shown["flags"]}
    assert shown["identity"]["oracle"]["label"] == "emulated"


def test_every_configuration_has_its_own_file(
    shipped: Callable[[str], Path], cli, tmp_path: Path
) -> None:
    need_digits()
    project = tmp_path / "s64"
    shutil.copytree(shipped("s64"), project)
    arguments = ("attack", project, "--native", "-n", "5", "--attack", "fgsm", "--draws", "2")
    for epsilon in ("0.1", "0.3", "0.1"):
        done = cli(*arguments, "--eps", epsilon)
        assert done.returncode == 0, done.stderr
    assert "going on" in done.stderr  # the first run again
    files = sorted((project / "results").glob("attack-*.sqlite"))
    assert len(files) == 2
    assert [len(_content(path)) for path in files] == [20, 20]
