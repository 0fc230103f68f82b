"""A campaign file on an emulated board and its twin: killed, resumed, reported, replayed."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import need_emulator
from small_network import small_network

from bnnmcu import reference
from bnnmcu.backend.project import write_project
from bnnmcu.boards import all_boards, load_board
from bnnmcu.cli.main import main
from bnnmcu.errors import StoreError
from bnnmcu.network.file import save_network
from bnnmcu.passes import lower
from bnnmcu.store import Store
from bnnmcu.store.compare import compare, content_rows

pytest.importorskip("torch", reason="crafting needs torch")

_DRAWS = 5
_IMAGES = 12
_CAMPAIGN = """
[campaign]
name = "tiny"
images = 12
draws = 5
data = "images.npz"
chunk = 6
device = "cpu"

[[model]]
name = "net"
project = "net"

[[model]]
name = "net-float"
file = "net.safetensors"
float = true

[[board]]
name = "board"
emulate = "unicorn"

[[board]]
name = "pc"
native = true

[[attack]]
preset = "cw-paper"
iterations = 5

[[attack]]
kind = "pgd"
epsilon = 0.2
steps = 3
eot_draws = 3
adversary = ["eot", "seed-known"]

[[attack]]
kind = "square"
epsilon = 0.3
budget = 8
images = 10

[[attack]]
name = "transfer"
kind = "fgsm"
epsilon = 0.3
eot_draws = 3
model = "net-float"
"""
# Images of clean, cw-paper, two of pgd, square and transfer.
_EXAMPLES = 12 + 12 + 2 * 12 + 10 + 12

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project, its model file, images that it knows, and a campaign; only to be read."""
    folder = tmp_path_factory.mktemp("campaign")
    rng = np.random.default_rng(8)
    network = small_network(drawn=True)
    # Draws that mostly agree, so that a clean image has a label to lose.
    ops = [
        replace(op, weights=rng.choice([0.02, 0.98], op.weights.shape))
        if op.name == "second"
        else op
        for op in network.ops
    ]
    network = replace(network, ops=tuple(ops))
    save_network(folder / "net.safetensors", network)
    graph = lower(network).graph
    board = load_board("nucleo_f446re")
    write_project(graph, board, folder / "net", boards=all_boards(), training={})
    images = rng.integers(0, 256, (400, 8, 8, 1), dtype=np.uint8)
    seeds = np.arange(400 * 9, dtype=np.uint64).reshape(400, 9)
    labels = reference.run(graph, images, seeds).argmax(-1)
    sure = (labels == labels[:, :1]).all(1)
    np.savez(folder / "images.npz", images=images[sure], labels=labels[sure, 0])
    (folder / "tiny.toml").write_text(_CAMPAIGN, encoding="utf-8")
    alone = _CAMPAIGN.replace('[[board]]\nname = "board"\nemulate = "unicorn"\n', "")
    (folder / "alone.toml").write_text(alone.replace('"tiny"', '"alone"'), encoding="utf-8")
    return folder


@pytest.fixture
def bnnmcu(capsys: pytest.CaptureFixture[str]) -> Run:
    """A command in this process: exit code, standard output and standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments)])
        found = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return code, found.out, found.err

    return run


def _answered(results: Path) -> int:
    """Images with answers in a run that may be going on."""
    try:
        with Store.read(results) as store:
            return len(store.judged())
    except StoreError:
        return 0


@pytest.fixture(scope="module")
def finished(place: Path, cli: Any) -> Path:
    """The campaign's folder of results, after a run that was killed and finished."""
    need_emulator("unicorn")
    command = cli.command("attack", place / "tiny.toml", "--quiet", "--json")
    process = subprocess.Popen(
        command, env=cli.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    results = place / "results"
    while process.poll() is None:
        found = list(results.glob("tiny-net-board-*.sqlite"))
        # In the middle of an attack: some chunks are crafted, and not all are answered.
        if found and _answered(found[0]) > _IMAGES + 3:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the campaign was over before it was killed"
    assert not (results / "tiny.json").exists()
    done = cli("attack", place / "tiny.toml", "--json")
    assert done.returncode == 0, done.stderr
    assert "going on with the run in" in done.stderr
    # What was crafted by gradients for the board is not crafted again for the twin.
    assert f"{_EXAMPLES - 10} images are those of tiny-net-board" in done.stderr
    assert json.loads(done.stdout) == json.loads((results / "tiny.json").read_text("utf-8"))
    return results


def _stores(results: Path) -> tuple[Path, Path]:
    (board,) = results.glob("tiny-net-board-*.sqlite")
    (twin,) = results.glob("tiny-net-pc-*.sqlite")
    return board, twin


def test_a_killed_campaign_ends_as_one_that_was_not(
    finished: Path, place: Path, bnnmcu: Run
) -> None:
    board, twin = _stores(finished)
    with Store.read(board) as store:
        assert [session.ended_at is None for session in store.sessions()] == [True, False]
    code, _, err = bnnmcu("attack", place / "alone.toml")
    assert code == 0, err
    (alone,) = finished.glob("alone-net-pc-*.sqlite")
    # Never stopped, nothing taken from another run, and no board: the same pixels, seeds and
    # logits all the same, those of the attack that asked the board included.
    for whole in (alone, twin):
        compared = compare(board, whole)
        assert compared.same, compared
    assert len({row.key[:4] for row in content_rows(board)}) == _EXAMPLES


def test_the_report_says_what_was_done_and_by_whom(finished: Path) -> None:
    facts = json.loads((finished / "tiny.json").read_text(encoding="utf-8"))
    assert facts["complete"] is True
    assert [run["label"] for run in facts["runs"]] == ["emulated", "native"]
    emulated, native = (run["summary"] for run in facts["runs"])
    cases = {case["attack"]: case for case in emulated["cases"]}
    assert list(cases) == ["clean", "cw-paper", "pgd-eot", "pgd-seed-known", "square", "transfer"]
    assert cases["clean"]["majority"]["value"] == 1.0
    assert cases["square"]["examples"] == 10
    assert 0 < cases["square"]["queries"]["largest"] <= 8
    # Every figure but times and ticks is the twin's as well.
    for mine, theirs in zip(emulated["cases"], native["cases"], strict=True):
        assert [mine[key] for key in ("mean", "worst", "unchanged", "successes")] == [
            theirs[key] for key in ("mean", "worst", "unchanged", "successes")
        ]
    assert emulated["audit"]["wrong"] == 0
    assert emulated["audit"]["recomputed"] == emulated["audit"]["successes"] > 0
    codes = {flag["code"] for flag in emulated["flags"]}
    assert {"randomised", "no-eot"} <= codes

    text = (finished / "tiny.md").read_text(encoding="utf-8")
    for words in (
        "net on board (emulated)",
        "net on pc (native)",
        "not on a chip",
        "| 0.2 | 0.200 (51/255) |",  # asked, and what it really is
        "adversaries side by side",
        "no-eot",
        "cw-paper: 12 pairs of an image and a wrong label",
        "5 draws an image",
    ):
        assert words in text, words


def test_stored_images_can_be_replayed_bit_for_bit(
    finished: Path, place: Path, tmp_path: Path, bnnmcu: Run
) -> None:
    board, twin = _stores(finished)
    # What one was asked, the other one answers: all of it on the board, a case on the twin.
    again = tmp_path / "board.sqlite"
    code, out, _ = bnnmcu(
        "replay", twin, place / "net", "--emulate", "unicorn", "-o", again, "--json"
    )
    found = json.loads(out)
    assert code == 0
    # The adversary who knows the seed is judged on that draw alone.
    answers = (_EXAMPLES - 12) * _DRAWS + 12
    assert (found["images"], found["compared"], found["equal"]) == (_EXAMPLES, answers, answers)
    assert found["summary"]["identity"]["replay"]["oracle"]["label"] == "native"
    assert found["summary"]["identity"]["oracle"]["label"] == "emulated"
    assert list(content_rows(again)) == list(content_rows(twin))

    part = tmp_path / "part.sqlite"
    arguments = ("replay", board, place / "net", "--native", "--case", "cw-paper", "-o", part)
    code, out, _ = bnnmcu(*arguments)
    assert code == 0
    assert f"{2 * 12 * _DRAWS} of {2 * 12 * _DRAWS} answers are equal" in out
    # Once more goes on where nothing is left to do.
    code, _, err = bnnmcu(*arguments)
    assert code == 0
    assert "going on" in err
    code, out, _ = bnnmcu("runs", "show", part, "--json")
    assert code == 0
    assert [case["attack"] for case in json.loads(out)["cases"]] == ["clean", "cw-paper"]


def test_a_replay_tells_another_answer_and_another_network(
    finished: Path, place: Path, tmp_path: Path, bnnmcu: Run
) -> None:
    _, twin = _stores(finished)
    altered = tmp_path / "altered.sqlite"
    shutil.copy(twin, altered)
    with closing(sqlite3.connect(altered)) as file, file:
        (logits,) = file.execute(
            "SELECT logits FROM query WHERE example = 1 AND draw = 0"
        ).fetchone()
        values = np.frombuffer(logits, "<i8").copy()
        values[values.argmin()] -= 1
        file.execute(
            "UPDATE query SET logits = ? WHERE example = 1 AND draw = 0", (values.tobytes(),)
        )
    code, out, err = bnnmcu(
        "replay", altered, place / "net", "--native", "-o", tmp_path / "a.sqlite"
    )
    assert code == 1
    assert "1 answers of the same network are other ones" in err
    assert "the first that differs: clean, image 0" in out

    save_network(tmp_path / "other.safetensors", small_network())
    code, out, _ = bnnmcu(
        "replay", twin, tmp_path / "other.safetensors", "--native", "--case", "transfer",
        "-o", tmp_path / "b.sqlite", "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert code == 0  # nothing had to agree
    assert found["same_network"] is False
    assert (found["images"], found["answers"]) == (24, 24)  # one draw: this one draws nothing
    with closing(sqlite3.connect(altered)) as file, file:
        file.execute("UPDATE example SET pixels = zeroblob(64) WHERE id = 30")
    code, _, err = bnnmcu("replay", altered, place / "net", "--native", "-o", tmp_path / "c.sqlite")
    assert code == 13
    assert "altered" in err


@pytest.mark.parametrize(
    ("alter", "arguments", "code", "words"),
    [
        (("[[board]]", "[[bord]]"), (), 2, "did you mean 'board'"),
        (('project = "net"', 'project = "nowhere"'), (), 3, "not a bnnmcu project"),
        (('file = "net.safetensors"', 'file = "gone.pt"'), (), 2, "no such model file"),
        (('data = "images.npz"', 'data = "gone.npz"'), (), 12, "gone.npz"),
        (("images = 12", "images = 4000"), (), 12, "4000 images wanted"),
        (("images = 12", "images = 12"), ("--eps", "0.3"), 2, "stands in the campaign file"),
        (("images = 12", "images = 12"), ("--native",), 2, "stands in the campaign file"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(
    place: Path,
    bnnmcu: Run,
    alter: tuple[str, str],
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    path = place / "mistaken.toml"
    path.write_text(_CAMPAIGN.replace(*alter).replace('"tiny"', '"mistaken"'), encoding="utf-8")
    found, out, err = bnnmcu("attack", path, *arguments)
    assert (found, out) == (code, "")
    assert words in err
    assert "Traceback" not in err
    assert not list(place.glob("results/mistaken*"))
