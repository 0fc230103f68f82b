"""The tables as documents: for the terminal, Markdown and HTML (:mod:`bnnmcu.report`)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from bnnmcu.paper.assemble import Board, Cell, Figure, Shown
from bnnmcu.report.cells import NONE
from bnnmcu.report.document import Table

__all__ = ["NOT_RUN", "boards_table", "extras_table", "main_table", "missing", "warmth_table"]

NOT_RUN = "not run"


def main_table(shown: Shown, *, split: bool = True) -> Table:
    """The paper's numbers, ours beside them, and what is left under the adaptive attack.

    Args:
        split: the name of a network stands in its first row only.
    """
    adaptive = any(cell.column.adaptive for cell in shown.cells)
    columns = ["network", "", "paper", "as in the paper", "differs", "our best", "differs"]
    columns += ["adaptive"] * adaptive + ["n", "of"]
    rows, hints = [], []
    last = ""
    for cell in shown.cells:
        figures = [cell.as_paper, cell.best]
        texts = [
            *(_figure_text(cell.as_paper), _differs(cell, cell.as_paper)),
            *(_figure_text(cell.best), _differs(cell, cell.best)),
        ]
        hint = [_records(cell.as_paper), "", _records(cell.best), ""]
        if adaptive:
            figures += [cell.adaptive] if cell.column.adaptive else []
            texts.append(_figure_text(cell.adaptive) if cell.column.adaptive else NONE)
            hint.append(_records(cell.adaptive))
        name = "" if split and cell.row == last else cell.row
        seeds = [str(one.estimate.n) if one else "0" for one in figures]
        sizes = [f"{one.counted:,}" if one and one.counted else NONE for one in figures]
        rows.append((name, cell.column.title, _published(cell), *texts, _same(seeds), _same(sizes)))
        hints.append(("", "", "", *hint, "", ""))
        last = cell.row
    other = any(not cell.comparable for cell in shown.cells)
    return Table(
        shown.spec.title + (", on other data than the paper's" if other else ""),
        tuple(columns),
        tuple(rows),
        text_columns=2,
        caption=f"{shown.spec.protocol} {_READING}",
        hints=tuple(hints),
    )


def _same(texts: list[str]) -> str:
    """One text where all are the same, else each."""
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


_READING = (
    "Percent, but of distances. Mean ± sample standard deviation over n trainings, or a single "
    "training with the standard error of its images in brackets; n and the number of images or "
    "pairs (of) are those of the three columns of ours. 'agrees': the difference is at most "
    "2 sqrt(pm² + sd²), with the standard error in place of sd where n is 1."
)


def _published(cell: Cell) -> str:
    return NONE if cell.paper is None else f"{cell.paper.value:g} ± {cell.paper.plus_minus:g}"


def _figure_text(figure: Figure | None, *, missing: str = NOT_RUN) -> str:
    """``1.52 ± 0.08``; of a single training ``1.52 (0.12)``, its standard error."""
    if figure is None:
        return missing
    own = figure.estimate
    digits = 1 if abs(own.mean) >= 10 else 2
    text = f"{own.mean:.{digits}f}"
    if own.sd is not None:
        return f"{text} ± {own.sd:.{digits}f}"
    return text if figure.error is None else f"{text} ({figure.error:.{digits}f})"


def _differs(cell: Cell, figure: Figure | None) -> str:
    held = cell.against(figure)
    if held is None:
        return NONE
    return f"{held.difference:+.{1 if abs(held.difference) >= 10 else 2}f} {held.verdict}"


def _records(figure: Figure | None) -> str:
    return "" if figure is None else "records " + " ".join(figure.ids)


def extras_table(shown: Shown) -> Table | None:
    """Figures that the paper does not print."""
    heads = list(dict.fromkeys(cell.column.title for cell in shown.extras))
    rows: list[tuple[str, ...]] = []
    hints: list[tuple[str, ...]] = []
    for name in dict.fromkeys(cell.row for cell in shown.extras):
        own = {cell.column.title: cell for cell in shown.extras if cell.row == name}
        for which in ("as in the paper", "our best", "our best, adaptive"):
            figures = [_which(own.get(head), which) for head in heads]
            if any(figures):
                texts = (_figure_text(figure, missing=NONE) for figure in figures)
                rows.append((name, which, *texts))
                hints.append(("", "", *map(_records, figures)))
    if not rows:
        return None
    return Table(
        f"Beside {shown.spec.name.replace('table', 'table ')}",
        ("network", "recipe", *heads),
        tuple(rows),
        text_columns=2,
        hints=tuple(hints),
    )


def _which(cell: Cell | None, which: str) -> Figure | None:
    if cell is None:
        return None
    if which == "as in the paper":
        return cell.as_paper
    return cell.best if which == "our best" else cell.adaptive


def warmth_table(shown: Shown) -> Table | None:
    """FGSM at several temperatures, with the scale of the logits."""
    if not shown.warmths:
        return None
    heads = tuple(column.title for column in shown.spec.columns)
    rows = tuple(
        (
            one.row,
            "as in the paper" if one.recipe == "paper" else "our best",
            f"{one.temperature:g}",
            *(_figure_text(figure) for figure in one.figures),
            _figure_text(one.scale, missing=NONE),
        )
        for one in shown.warmths
    )
    return Table(
        "FGSM at other softmax temperatures",
        ("network", "recipe", "T", *heads, "logit spread"),
        rows,
        text_columns=2,
        caption="Accuracy in percent. The paper has T = 1. Logit spread: largest minus smallest "
        "logit of a clean image, mean over images; a softmax of widely spread logits has no "
        "gradient left, and dividing them by T gives it back.",
        hints=tuple(
            ("", "", "", *map(_records, one.figures), _records(one.scale)) for one in shown.warmths
        ),
    )


def boards_table(shown: Shown) -> Table | None:
    """The samples on emulated boards."""
    done = [one for one in shown.boards if one.values is not None]
    if not done:
        return None
    keys = ("images", "draws", "logits", "differing_logits", "board", "emulator", "compiler")
    return Table(
        "On the emulated board",
        ("network", *(key.replace("_", " ") for key in keys)),
        tuple((one.row, *(_value(one, key) for key in keys)) for one in done),
        caption="Clean images and adversarial ones through the board's firmware; every logit is "
        "held against the native twin's, which gave the figures above. Emulated, not on a chip.",
        hints=tuple((f"record {one.record}", *("" for _ in keys)) for one in done),
    )


def _value(one: Board, key: str) -> str:
    assert one.values is not None
    value = one.values.get(key)
    return NONE if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def missing(shown: Shown) -> Iterator[str]:
    """Commands for what was not run, each once; those that differ in the row alone as one."""
    commands = [one for cell in shown.cells for one in cell.commands.values()]
    commands += [one.command for one in shown.boards if one.values is None]
    groups: dict[tuple[str, ...], list[str]] = {}
    for command in dict.fromkeys(commands):
        words = shlex.split(command)
        at = words.index("--row")
        rows = groups.setdefault((*words[:at], "--row", *words[at + 2 :]), [])
        rows.append(words[at + 1])
    for rest, rows in groups.items():
        at = rest.index("--row")
        named = [word for row in rows for word in ("--row", row)]
        yield shlex.join([*rest[:at], *named, *rest[at + 1 :]])
