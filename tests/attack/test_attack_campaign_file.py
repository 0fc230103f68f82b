"""Campaign files: what they become, and what is refused with which words."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

import bnnmcu.attack.flags
from bnnmcu.attack.campaign_file import BoardEntry, CampaignFile, ModelEntry, read_campaign
from bnnmcu.attack.config import KINDS, PRESETS
from bnnmcu.errors import UsageError

_ROOT = Path(__file__).resolve().parents[2]

_MODELS = """
[campaign]
name = "small"
images = 20

[[model]]
name = "s"
project = "out/s"
file = "s.pt"

[[model]]
name = "s-float"
file = "s.pt"
float = true
"""


def _read(tmp_path: Path, text: str) -> CampaignFile:
    path = tmp_path / "campaign.toml"
    path.write_text(text, encoding="utf-8")
    return read_campaign(path)


def test_lists_become_cases_with_names_of_their_own(tmp_path: Path) -> None:
    attacks = """
[[attack]]
kind = "pgd"
epsilon = [0.1, 0.3]
adversary = ["eot", "seed-known"]
steps = 7

[[attack]]
preset = "cw-paper"
iterations = [100, 1000]
targets = "all"

[[attack]]
kind = "pgd-l2"
epsilon = [1.5, 1.5001]
model = "s-float"

[[attack]]
kind = "fgsm"
epsilon = 0.3
"""
    found = _read(tmp_path, _MODELS + attacks)
    assert [(one.case, one.levels) for one in found.attacks] == [
        ("pgd-eot", 25),
        ("pgd-eot", 76),
        ("pgd-seed-known", 25),
        ("pgd-seed-known", 76),
        ("cw-paper-iterations100", 0),
        ("cw-paper-iterations1000", 0),
        ("pgd-l2-eps1.5", 382),
        ("pgd-l2-eps1.5001", 382),
        ("fgsm", 76),
    ]
    # The same as 'bnnmcu attack' makes it, so that its results can be held against these.
    assert found.attacks[-1].name == ""
    pgd, paper = found.attacks[0], found.attacks[5]
    assert (pgd.kind, pgd.steps) == ("pgd", 7)
    assert (paper.kind, paper.adversary, paper.iterations, paper.targets) == (
        "cw", "paper", 1000, "all",
    )  # fmt: skip
    # A network without draws has nothing to average over; another one's draws stay.
    assert {one.eot_draws for one in found.config(stochastic=True).attacks} == {10}
    alone = {one.case: one.eot_draws for one in found.config(stochastic=False).attacks}
    assert alone["pgd-eot"] == 1
    assert alone["pgd-l2-eps1.5"] == 10


def test_paths_are_the_files_own_and_defaults_are_told(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    text = _MODELS.replace("images = 20", 'images = 0\ndata = "mnist-folder:train"')
    found = _read(tmp_path / "deep", text)
    folder = (tmp_path / "deep").resolve()
    assert found.model("s").project == folder / "out" / "s"
    assert found.model("s-float").file == folder / "s.pt"
    assert (found.images, found.draws, found.seed) == (None, 21, 1)
    assert found.data == str(folder / "mnist-folder:train")
    assert found.results == folder / "results"
    assert found.answers == ("s",)  # what has a project
    assert [(board.name, board.native) for board in found.boards] == [("native", True)]
    assert [(model.name, board.name) for model, board in found.runs()] == [("s", "native")]


def test_boards_are_reached_as_from_the_command_line(tmp_path: Path) -> None:
    boards = """
[[board]]
name = "bench"
port = "auto"
max_baud = 0
flaky = "drop=0.01"
[[board]]
name = "emulated"
emulate = "qemu"
pace = 115200
[[board]]
name = "pc"
native = true
"""
    bench, emulated, native = (one.options for one in _read(tmp_path, _MODELS + boards).boards)
    assert bench is not None
    assert (bench.port, bench.max_baud, bench.flaky) == ("auto", 0, "drop=0.01")
    assert emulated is not None
    assert (emulated.emulate, emulated.pace, emulated.port) == ("qemu", 115200, None)
    assert native is None


_ATTACK = '\n[[attack]]\nkind = "pgd"\nepsilon = 0.3\n'

_REFUSED = {
    # what is written: table and key it is about, and what would do
    "[campaign]\nsede = 2": ("[campaign]", "did you mean 'seed'"),
    "[campain]\nseed = 2": ("campaign.toml", "did you mean 'campaign'"),
    "[campaign]\ndraws = 2.5": ("[campaign]: draws", "not a whole number"),
    "[campaign]\nseed = true": ("[campaign]: seed", "not a whole number"),
    "[campaign]\nimages = -3": ("[campaign]: images", "too few"),
    '[campaign]\ndevice = "cudo"': ("[campaign]: device", "did you mean 'cuda'"),
    '[campaign]\nname = "a/b"': ("[campaign]: name", "letters, digits"),
    "[campaign": ("campaign.toml", "not a TOML file"),
    "model = 3": ("[[model]]", "two pairs of brackets"),
    '[[model]]\nname = "x"': ("[[model]] 1 (x)", "neither 'project' nor 'file'"),
    '[[model]]\nproject = "x"': ("[[model]] 1", "missing key 'name'"),
    '[[model]]\nname = "x"\nproject = "x"\nfloat = true': ("[[model]] 1 (x)", "needs 'file'"),
    '[[model]]\nname = "x"\nfile = "x.pt"': ("answers", "no model answers"),
    _MODELS + '\n[[model]]\nname = "s"\nfile = "t"': ("[[model]] 3", "'s' is taken"),
    _MODELS + '[[board]]\nname = "b"': ("[[board]] 1 (b)", "exactly one of emulate, port"),
    _MODELS + '[[board]]\nname = "b"\nnative = true\nport = "auto"': ("[[board]] 1", "exclude"),
    _MODELS + '[[board]]\nname = "b"\nnative = true\npace = 9600': ("[[board]] 1", "'pace'"),
    _MODELS + '[[board]]\nname = "b"\nemulate = "quemu"': ("emulate", "did you mean 'qemu'"),
    _MODELS + '[[board]]\nname = "b"\nemulate = "qemu"\nbaud = 9600': ("[[board]] 1", "'pace'"),
    'answers = ["t"]\n' + _MODELS: ("answers", "known: s, s-float"),
    'answers = ["s-float"]\n' + _MODELS + '[[board]]\nname = "b"\nemulate = "qemu"': (
        "answers",
        "bnnmcu export",
    ),
    _MODELS + '[[attack]]\nkind = "pgdd"\nepsilon = 0.3': ("[[attack]] 1", "did you mean 'pgd'"),
    _MODELS + "[[attack]]\nepsilon = 0.3": ("[[attack]] 1", "neither 'kind' nor 'preset'"),
    _MODELS + '[[attack]]\nkind = "pgd"': ("[[attack]] 1 (pgd)", "missing key 'epsilon'"),
    _MODELS + '[[attack]]\nkind = "cw"\nepsilon = 0.3': ("[[attack]] 1 (cw)", "'epsilon'"),
    _MODELS + _ATTACK + "stepz = 3": ("[[attack]] 1 (pgd)", "did you mean 'steps'"),
    _MODELS + _ATTACK + 'steps = "3"': ("steps", "not a whole number"),
    _MODELS + _ATTACK + "steps = []": ("steps", "an empty list"),
    _MODELS + _ATTACK + "steps = [3, 3]": ("steps", "twice"),
    _MODELS + _ATTACK + "steps = 0": ("[[attack]] 1 (pgd)", "steps is 0"),
    _MODELS + _ATTACK + 'adversary = "seed-knwon"': ("adversary", "did you mean 'seed-known'"),
    _MODELS + _ATTACK + 'model = "s-flaot"': ("model", "did you mean 's-float'"),
    _MODELS + _ATTACK + _ATTACK: ("[[attack]] 2", "is in [[attack]] 1 too"),
    _MODELS + '[[attack]]\nkind = "pgd"\nepsilon = 1.5': ("[[attack]] 1 (pgd)", "between 0 and 1"),
}


@pytest.mark.parametrize("text", _REFUSED)
def test_refusals_name_the_place_and_what_would_do(tmp_path: Path, text: str) -> None:
    place, advice = _REFUSED[text]
    with pytest.raises(UsageError) as caught:
        _read(tmp_path, text)
    assert caught.value.where is not None
    assert caught.value.where.startswith(str(tmp_path / "campaign.toml"))
    assert place in caught.value.where
    assert advice in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_campaign(tmp_path / "nothing.toml")


@pytest.mark.parametrize("name", ["campaign.toml", "campaign_quick.toml"])
def test_the_examples_say_what_can_be_done(name: str) -> None:
    found = read_campaign(_ROOT / "examples" / name)
    assert found.answers == ("s64",)
    assert {board.emulate for board in found.boards} & {"auto", "qemu"}
    for model in found.models:
        assert model.file is None or model.file.is_file()
    kinds = {attack.kind for attack in found.attacks}
    if name == "campaign.toml":
        # 90 cells of true label and target, six images each, and what trains the substitute.
        pairs = [attack for attack in found.attacks if attack.targets == "pairs"]
        assert {attack.images for attack in pairs} == {540}
        assert found.images == 540 + 150
        assert kinds >= KINDS.keys() - {"pgd-l2"}


def test_every_key_and_flag_is_documented() -> None:
    text = (_ROOT / "docs" / "ATTACKS.md").read_text(encoding="utf-8")
    told = {word for piece in re.findall(r"`([^`\n]+)`", text) for word in piece.split()}
    folder = Path(bnnmcu.attack.flags.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    flags = set(re.findall(r'Flag\(\s*"([a-z-]+)"', code))
    assert len(flags) > 10
    settings = {field.name for kind in KINDS.values() for field in fields(kind)}
    entries = {field.name for kind in (ModelEntry, BoardEntry) for field in fields(kind)}
    top = {"seed", "draws", "images", "data", "results", "chunk", "workers", "device", "answers"}
    wanted = flags | settings | entries - {"is_float"} | top | KINDS.keys() | PRESETS.keys()
    missing = wanted - told
    assert not missing, f"docs/ATTACKS.md does not describe {sorted(missing)}"
