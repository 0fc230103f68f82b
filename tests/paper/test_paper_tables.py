"""From records to cells, from cells to documents."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from bnnmcu.cli.main import cli
from bnnmcu.errors import UsageError
from bnnmcu.paper.assemble import Shown, assemble
from bnnmcu.paper.lookup import Index
from bnnmcu.paper.pages import boards_table, main_table, missing, warmth_table
from bnnmcu.paper.recipes import Trainable
from bnnmcu.paper.record import Record, record_id
from bnnmcu.paper.selection import Selection, tasks
from bnnmcu.paper.site import document
from bnnmcu.paper.story import story
from bnnmcu.paper.tables import ORDER, TABLES
from bnnmcu.paper.tables.spec import Sizes
from bnnmcu.report.document import Document, Picture, Section, Table
from bnnmcu.report.html import to_html
from bnnmcu.report.markdown import to_markdown

_SHA = {"MNIST test": "d" * 64, "digits": "e" * 64}


def _record(what: dict[str, Any], values: dict[str, Any], data: str = "MNIST test") -> Record:
    return Record(
        id=record_id(what, data, _SHA[data]),
        what=what,
        data_name=data,
        data_sha256=_SHA[data],
        data_images=10_000 if data == "MNIST test" else 1_000,
        values=values,
        model_sha256="a" * 64,
        graph_sha256=None,
        training_seconds=1.0,
        measuring_seconds=1.0,
        device="cpu",
        versions={"bnnmcu": "1", "torch": "2", "numpy": "2", "python": "3"},
        machine="m",
        made_at="2026-01-31T12:00:00Z",
        command="bnnmcu paper table6 --row B64",
    )


def _records(selection: Selection, **values: Any) -> list[Record]:
    """A record for every task, all with these values, and the size that was asked for."""
    found = []
    for task in tasks(selection):
        what = task.job.what()
        size = what["settings"].get("pairs") or what["settings"].get("images") or 10_000
        key = "pairs" if task.job.measure == "cw" else "images"
        found.append(_record(what, {**values, key: size}))
    return found


def _shown(table: str, row: str, records: list[Record]) -> Shown:
    spec = TABLES[table]
    rows = [one for one in spec.rows((32, 64)) if one.name == row]
    return assemble(spec, rows, Index(records), Selection((table,)))


def test_seeds_recipes_and_agreement() -> None:
    clean = Selection(("table6",), seeds=(1, 2), rows=("B64",))
    records = _records(clean)
    errors = {("paper", 1): 0.0310, ("paper", 2): 0.0290, ("best", 1): 0.015, ("best", 2): 0.016}
    records = [
        replace(one, values={"error": errors[one.what["recipe"], one.seed], "images": 10_000})
        for one in records
    ]
    (cell,) = _shown("table6", "B64", records).cells
    assert cell.as_paper is not None
    assert cell.best is not None
    assert cell.as_paper.estimate.mean == pytest.approx(3.0)
    assert cell.as_paper.estimate.sd == pytest.approx(0.1414, abs=1e-4)
    assert set(cell.as_paper.ids) == {one.id for one in records if one.what["recipe"] == "paper"}
    # The paper has 2.3 ± 0.1.
    for figure, verdict in ((cell.as_paper, "worse"), (cell.best, "better")):
        held = cell.against(figure)
        assert held is not None
        assert held.verdict == verdict
    row = main_table(_shown("table6", "B64", records)).rows[0]
    assert row[:4] == ("B64", "error", "2.3 ± 0.1", "3.00 ± 0.14")
    assert row[4] == "+0.70 worse"
    assert not cell.commands


def test_what_was_not_run_has_its_command() -> None:
    shown = _shown("table1", "B64", [])
    assert {cell.best for cell in shown.cells} == {None}
    assert "not run" in main_table(shown).rows[0]
    commands = list(missing(shown))
    assert len(commands) == 4, "paper, best, adaptive and board, each once"
    for command in commands:
        words = shlex.split(command)
        found = cli.get_command(click.Context(cli), words[1])
        assert found is not None
        found.make_context(words[1], words[2:], parent=click.Context(cli))
    assert story(shown) == "Nothing of this table was run yet."


@pytest.mark.parametrize(("error", "told"), [(0.73, True), (0.09, False)])
def test_a_network_that_did_not_learn_is_called_so(error: float, told: bool) -> None:
    clean = Selection(("table6",), seeds=(1, 1), rows=("S64",), recipes=("paper",))
    records = [replace(one, values={"error": error, "images": 10_000}) for one in _records(clean)]
    assert (f"errs in {100 * error:.0f} % of clean" in story(_shown("table6", "S64", records))) == (
        told
    )


def test_rows_that_were_not_run_share_a_command() -> None:
    spec = TABLES["table3"]
    rows = [one for one in spec.rows((32, 64)) if one.name in ("B32", "B64", "S64")]
    commands = list(missing(assemble(spec, rows, Index([]), Selection(("table3",)))))
    rows_of = [
        [shlex.split(one)[at + 1] for at, word in enumerate(shlex.split(one)) if word == "--row"]
        for one in commands
    ]
    assert {tuple(one) for one in rows_of} == {("B32",), ("B64", "S64")}, "B32 needs its --k"
    assert len(commands) == 8, "paper, best, adaptive and board of each"


def test_a_single_seed_has_the_error_of_its_pairs() -> None:
    selection = Selection(("table3",), seeds=(1, 1), rows=("S64",), recipes=("best",))
    records = _records(selection, accuracy=0.30, low=0.27, high=0.33, mean_l2_all=1.5, error=0.03)
    shown = _shown("table3", "S64", records)
    cells = {cell.column.key: cell for cell in shown.cells}
    accuracy = cells["accuracy"].best
    assert accuracy is not None
    assert accuracy.error == pytest.approx(100 * 0.06 / (2 * 1.96), rel=1e-3)
    assert accuracy.counted == 990
    assert cells["accuracy"].adaptive is not None
    assert cells["accuracy"].adaptive.counted == 270
    assert cells["accuracy at 1000"].best is not None
    assert cells["accuracy at 1000"].best.counted == 200
    assert cells["mean_l2"].best is not None
    assert cells["mean_l2"].best.estimate.mean == 1.5, "a distance is no percentage"
    assert cells["error"].paper is not None
    assert cells["error"].paper.value == 8
    row = main_table(shown).rows[0]
    assert row[5] == "30.0 (1.5)"
    assert row[-1] == "- / 990 / 270"


def test_sizes_are_never_mixed() -> None:
    def of(pairs: int, seeds: tuple[int, int], accuracy: float) -> list[Record]:
        selection = Selection(
            ("table3",),
            rows=("B64",),
            recipes=("best",),
            parts=("cells",),
            seeds=seeds,
            sizes=Sizes(pairs=pairs),
        )
        return _records(selection, accuracy=accuracy)

    records = of(90, (1, 3), 0.5) + of(990, (1, 1), 0.1)
    (cell, *_) = _shown("table3", "B64", records).cells
    assert cell.best is not None
    assert (cell.best.estimate.n, cell.best.counted) == (3, 90), "what most seeds have"
    (cell, *_) = _shown("table3", "B64", of(90, (1, 1), 0.5) + of(990, (1, 1), 0.1)).cells
    assert cell.best is not None
    assert (cell.best.estimate.mean, cell.best.counted) == (pytest.approx(10.0), 990)


def test_other_data_are_left_out() -> None:
    selection = Selection(("table6",), seeds=(1, 1), rows=("A64",), recipes=("best",))
    (true,) = _records(selection, error=0.01)
    wrong = _record(dict(true.what), {"error": 0.5, "images": 1_000}, "digits")
    index = Index([wrong, true])
    assert [one.id for one in index.left_out] == [wrong.id]
    (cell,) = _shown("table6", "A64", [wrong, true]).cells
    assert cell.best is not None
    assert cell.best.estimate.mean == pytest.approx(1.0)
    # On their own they are shown, and held against nothing.
    (cell,) = _shown("table6", "A64", [wrong]).cells
    assert cell.best is not None
    assert cell.against(cell.best) is None
    # Another recipe is another figure, whatever its name says.
    changed = dict(true.what) | {"training": {**true.what["training"], "epochs": 1}}
    (cell,) = _shown("table6", "A64", [_record(changed, {"error": 0.5, "images": 1})]).cells
    assert cell.best is None


def test_temperatures_and_boards() -> None:
    selection = Selection(("table1",), seeds=(1, 1), rows=("B64",), recipes=("best",))
    done = tasks(selection)
    assert [task.job.measure for task in done] == [
        "fgsm",
        "pgd_adaptive",
        *["fgsm"] * 3,
        "emulated",
    ]
    values = {f"accuracy@{one}": 0.4 for one in ("0.1", "0.2", "0.3")}
    shown = _shown(
        "table1", "B64", _records(selection, **values, logit_spread=21.5, differing_logits=0)
    )
    warmths, boards = warmth_table(shown), boards_table(shown)
    assert warmths is not None
    assert [row[2] for row in warmths.rows] == ["1", "4", "10", "30"]
    assert warmths.rows[0][-1] == "21.5"
    assert boards is not None
    assert boards.rows[0][0] == "B64"
    assert "T = 30" in story(shown)


def test_order_seeds_and_dear_parts() -> None:
    assert ORDER == ("table6", "table1", "table3", "table2", "table4", "table5")
    found = tasks(Selection(("table1", "table6"), rows=("C64",), recipes=("best",)))
    assert len({task.job for task in found}) == len(found)
    assert found[0].table == "table6"
    by = {
        measure: {t.job.trainable.seed for t in found if t.job.measure == measure}
        for measure in ("clean", "fgsm", "pgd_adaptive", "emulated")
    }
    assert by == {
        "clean": {1, 2, 3, 4},
        "fgsm": {1, 2, 3, 4},
        "pgd_adaptive": {1},
        "emulated": {1},
    }
    later = Selection(("table1",), rows=("C64",), seeds=(3, 4), recipes=("best",))
    assert {task.job.measure for task in tasks(later)} == {"fgsm"}
    asked = replace(later, parts=("adaptive",))
    assert {task.job.trainable.seed for task in tasks(asked)} == {3, 4}
    with pytest.raises(UsageError, match="S64"):
        tasks(Selection(("table1",), rows=("S64",)))
    rows = {row.name for row in Selection(("table3",)).rows_of(TABLES["table3"])}
    assert rows == {"B32", "B64", "S64", "B32+", "B64+"}
    assert Trainable("B", 32, "pgd20").name in rows


def test_the_document_has_all_and_is_the_same_again() -> None:
    selection = Selection(("table6",), seeds=(1, 1), rows=("B64",))
    index = Index(_records(selection, error=0.02))
    made = document(index, Selection(tuple(ORDER)), Path("results.json"))
    text = to_markdown(made)
    for word in ("A256+*", "S128", "not run", index.records[0].id, "core-hours"):
        assert word in text
    assert to_html(made) == to_html(document(index, Selection(tuple(ORDER)), Path("results.json")))


def test_pages_are_escaped(tmp_path: Path) -> None:
    bad = '<script>alert("1")</script>'
    (tmp_path / "a.svg").write_text("<svg/>")
    table = Table(bad, (bad,), ((bad,),), caption=bad, hints=((f'"{bad}',),))
    section = Section(bad, (bad,), (bad,), (table,), (Picture("a.svg", bad, bad),), (bad,))
    page = to_html(Document(bad, (section,), {}), tmp_path)
    assert "<script" not in page
    assert '"1"' not in page
    assert page.count("&lt;script&gt;") == 17
    assert "data:image/svg+xml;base64,PHN2Zy8+" in page
    assert 'src="http' not in page
    with pytest.raises(UsageError):
        to_html(Document("", (Section("", pictures=(Picture("a.gif", ""),)),), {}), tmp_path)


@pytest.mark.parametrize(
    ("recipe", "whose"), [("paper", "the paper's training"), ("best", "our best training")]
)
def test_the_story_names_the_training_that_it_tells_of(recipe: Any, whose: str) -> None:
    selection = Selection(("table3",), seeds=(1, 1), rows=("S64",), recipes=(recipe,))
    told = story(_shown("table3", "S64", _records(selection, accuracy=0.35, mean_l2_all=4.5)))
    assert f"keeps 35.0 % with {whose};" in told
