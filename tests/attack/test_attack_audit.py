"""Successes looked at again: whatever was altered, or never was true, is found."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="crafting needs torch")

import trap_rig as rig

from bnnmcu.attack import audit as audit_module
from bnnmcu.attack.audit import audit_run
from bnnmcu.attack.campaign import Campaign, campaign_identity
from bnnmcu.attack.config import CampaignConfig, PgdConfig, PgdL2Config
from bnnmcu.attack.metrics import summarize
from bnnmcu.attack.metrics.audited import Audit
from bnnmcu.attack.oracle import Answer, NativeOracle, ReferenceOracle
from bnnmcu.attack.seeds import candidate_seeds
from bnnmcu.errors import DataError, MissingDependencyError
from bnnmcu.store import Store

IMAGES = 12
DATA = rig.patterns(IMAGES)
ATTACKS = (PgdConfig(epsilon=0.16, steps=5), PgdL2Config(epsilon=2.0, steps=5))


class Liar(ReferenceOracle):
    """Adds one to the first logit of the last image."""

    def logits(
        self, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> Iterator[Answer]:
        *sound, last = super().logits(images, seeds)
        yield from sound
        yield Answer(last.logits + np.eye(rig.CLASSES, dtype=np.int64)[0])


def finished(path: Path, oracle: Any) -> Path:
    graph, config = rig.linear_graph(), CampaignConfig(ATTACKS)
    with Store.open(path, campaign_identity(config, graph, DATA, oracle)) as store:
        Campaign(config, graph, DATA, oracle, store, workers=1).run()
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    return finished(folder / "run.db", ReferenceOracle(rig.linear_graph()))


def look(path: Path, **more: Any) -> Audit:
    with Store.read(path) as store:
        answers = more.get("answers", ReferenceOracle(rig.linear_graph()))
        return audit_run(store, rig.linear_graph(), DATA, answers=answers)


def test_a_sound_run_holds(sound: Path) -> None:
    found = look(sound)
    assert found.successes > IMAGES
    assert (found.changes, found.recomputed, found.unseeded) == (24, found.successes, 0)
    assert (found.wrong, found.mismatches, found.judge) == (0, (), "reference of linear")


ALL = np.full(64, 255, np.uint8).tobytes()
SHA = hashlib.sha256(ALL).hexdigest()
WHITE = f"pixels = x'{ALL.hex()}', sha256 = '{SHA}'"
CHANGE = DATA.images[0].astype(int) - 255
FAR = f"{WHITE}, linf = {abs(CHANGE).max()}, l2 = {float(np.sqrt((CHANGE**2).sum()) / 255)!r}"
# Between the budget of 2 and twice that.
NEAR = DATA.images[0].copy()
for _place in range(NEAR.size):
    _part = NEAR.astype(int) - DATA.images[0]
    if (_part**2).sum() > (2.2 * 255) ** 2:
        break
    NEAR.flat[_place] = 0 if NEAR.flat[_place] > 127 else 255
NEARBY = (
    f"pixels = x'{NEAR.tobytes().hex()}', sha256 = '{hashlib.sha256(NEAR.tobytes()).hexdigest()}', "
    f"linf = {abs(_part).max()}, l2 = {float(np.sqrt((_part**2).sum()) / 255)!r}"
)
FIRST = "image = 0 AND attack ="
ALTERED = {
    "norm": (f"UPDATE example SET l2 = l2 / 2 WHERE {FIRST} 'pgd'", "pgd", "not as stored"),
    "largest change": (f"UPDATE example SET linf = 1 WHERE {FIRST} 'pgd'", "pgd", "not as stored"),
    "budget": (f"UPDATE example SET {FAR} WHERE {FIRST} 'pgd'", "pgd", "clean image, beyond 40"),
    "L2 budget": (f"UPDATE example SET {FAR} WHERE {FIRST} 'pgd-l2'", "pgd-l2", "L2, beyond 2.000"),
    "L2, by a little": (
        f"UPDATE example SET {NEARBY} WHERE {FIRST} 'pgd-l2'", "pgd-l2", "L2, beyond 2.000",
    ),
    "clean": (f"UPDATE example SET {FAR} WHERE {FIRST} 'clean'", "clean", "is a clean image, and"),
    "truth": (f"UPDATE example SET true_label = 3 WHERE {FIRST} 'pgd'", "pgd", "true label is 0"),
    "seed": (
        "UPDATE query SET seed = '0000000000000001' WHERE example = (SELECT id FROM example "
        f"WHERE {FIRST} 'pgd')", "pgd", "not those that the run's seed gives",
    ),
    "logits": (
        "UPDATE query SET logits = x'" + bytes(24).hex() + (5).to_bytes(8, "little").hex() + "', "
        f"label = 3 WHERE example = (SELECT id FROM example WHERE {FIRST} 'pgd')",
        "pgd", "reference of linear gives other logits for the same pixels and seeds, in 1 of 1",
    ),
    "an answer that claims to resist": (
        "UPDATE query SET logits = x'" + (5).to_bytes(8, "little").hex() + bytes(24).hex() + "', "
        f"label = 0 WHERE example = (SELECT id FROM example WHERE {FIRST} 'pgd')",
        "pgd", "gives other logits for the same pixels and seeds, in 1 of 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERED)
def test_what_was_altered_is_found(sound: Path, tmp_path: Path, name: str) -> None:
    statement, attack, words = ALTERED[name]
    path = Path(shutil.copy(sound, tmp_path))
    with closing(sqlite3.connect(path)) as file, file:
        assert file.execute(statement).rowcount == 1
        # The answers were to these pixels, somebody says.
        file.execute(
            "UPDATE query SET input_sha256 = (SELECT sha256 FROM example WHERE id = example)"
        )
    found = look(path)
    assert (found.wrong, len(found.mismatches)) == (1, 1)
    (one,) = found.mismatches
    assert (one.attack, one.image) == (attack, 0)
    assert words in one.what
    with Store.read(path) as store:
        flag = next(flag for flag in summarize(store, found).flags if flag.code == "audit")
    assert flag.severity == "warning"
    assert f"first {attack}, image 0: " in flag.text


@pytest.mark.parametrize(
    ("label", "unseeded", "severities"),
    [
        ("emulated", True, ["note"]),
        ("float", False, ["note"]),
        # The native twin has no seeds of its own: somebody took them away.
        ("native", True, ["warning", "note"]),
    ],
)
def test_what_cannot_be_recomputed_is_told(
    sound: Path, tmp_path: Path, label: str, unseeded: bool, severities: list[str]
) -> None:
    path = Path(shutil.copy(sound, tmp_path))
    with closing(sqlite3.connect(path)) as file, file:
        statement = "UPDATE run SET identity = json_set(identity, '$.oracle.label', ?)"
        file.execute(statement, (label,))
        if unseeded:
            file.execute("UPDATE query SET seed = 'unknown'")
    found = look(path, answers=None)
    assert (found.recomputed, found.judge) == (0, "")
    assert bool(found.wrong) == ("warning" in severities)
    assert found.unseeded == (found.successes if unseeded else 0)
    with Store.read(path) as store:
        flags = [flag for flag in summarize(store, found).flags if flag.code == "audit"]
    assert [flag.severity for flag in flags] == severities


def test_without_a_compiler_the_reference_answers(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(graph: object) -> None:
        raise MissingDependencyError("no C compiler")

    monkeypatch.setattr(audit_module, "NativeOracle", missing)
    assert look(sound, answers=None).judge == "reference of linear"


def test_a_native_twin_is_not_its_own_witness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would agree with itself, however wrong; the reference has the last word."""
    monkeypatch.setattr(Liar, "label", "native")
    path = finished(tmp_path / "run.db", Liar(rig.linear_graph()))
    monkeypatch.setattr(audit_module, "NativeOracle", Liar)
    monkeypatch.setattr(audit_module, "_BY_REFERENCE", 99)
    found = look(path, answers=None)
    assert found.mismatches
    assert all("reference of linear" in one.what for one in found.mismatches)
    assert found.judge.endswith(f"{found.successes} of them by the reference of linear, too")


def test_a_seed_may_be_chosen_among_the_candidates_only(sound: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(sound, tmp_path))
    place = "WHERE example = (SELECT id FROM example WHERE image = 0 AND attack = 'pgd')"
    chosen = int(candidate_seeds(1, "pgd", 40, 0, 7)[6])
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(f"UPDATE query SET seed = '{chosen:016x}' {place}")
    assert look(path).wrong == 1
    adversary = "'$.config.attacks[0].adversary', 'seed-chosen'"
    for count, wrong in ((6, 1), (7, 0)):
        with closing(sqlite3.connect(path)) as file, file:
            file.execute(
                f"UPDATE run SET identity = json_set(identity, {adversary}, "
                f"'$.config.attacks[0].candidate_seeds', {count})"
            )
        assert look(path).wrong == wrong


def test_other_images_are_refused(sound: Path) -> None:
    with Store.read(sound) as store, pytest.raises(DataError, match="not the images"):
        audit_run(store, rig.linear_graph(), rig.patterns(IMAGES + 1))


def test_the_native_twin_answers_where_there_is_a_compiler(sound: Path) -> None:
    try:
        NativeOracle(rig.linear_graph())
    except MissingDependencyError:
        pytest.skip("needs a C compiler")
    found = look(sound, answers=None)
    assert (found.wrong, found.judge) == (0, "native twin of linear")
