"""One paragraph on what each table shows, made from the figures that are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bnnmcu.paper.assemble import Cell, Figure, Shown

__all__ = ["in_short", "story"]


def story(shown: Shown) -> str:
    """What the table says, as far as it was run."""
    if not any(cell.as_paper or cell.best for cell in shown.cells):
        return "Nothing of this table was run yet."
    write = {
        "table1": _table1,
        "table2": _table2,
        "table3": _table3,
        "table4": _table4,
        "table5": _table5,
        "table6": _table6,
    }[shown.spec.name]
    return " ".join([_count(shown), *write(shown)])


def in_short(tables: Sequence[Shown]) -> Iterator[str]:
    """One line for each table."""
    for shown in tables:
        yield f"{shown.spec.title}: {_count(shown)}"


def _count(shown: Shown) -> str:
    """How many numbers of the paper agree, by recipe."""
    printed = [cell for cell in shown.cells if cell.paper is not None]
    parts = []
    for words, name in (("as in the paper", "as_paper"), ("our best", "best")):
        held = [cell.against(getattr(cell, name)) for cell in printed]
        done = [one for one in held if one is not None]
        if done:
            agree = sum(one.verdict == "agrees" for one in done)
            parts.append(f"{words}, {agree} of {len(done)} agree with the paper")
    if not parts:
        return f"none of the paper's {len(printed)} numbers was measured again."
    done_cells = sum(bool(cell.as_paper or cell.best) for cell in printed)
    return f"{done_cells} of the paper's {len(printed)} numbers were measured; {'; '.join(parts)}."


def _mean(figure: Figure | None) -> float | None:
    return None if figure is None else figure.estimate.mean


def _best(cell: Cell | None) -> float | None:
    """Our best network's figure, or that of the paper's training."""
    return None if cell is None else _mean(cell.best or cell.as_paper)


def _table1(shown: Shown) -> Iterator[str]:
    gaps = list(_gaps(shown))
    if gaps:
        yield (
            "One step of FGSM is a weak attack: within the same budget the strongest gradient "
            f"attack leaves {_span([one[2] for one in gaps])} % where FGSM leaves "
            f"{_span([one[1] for one in gaps])} %, and it decides."
        )
    loud = [one for one in shown.warmths if one.row.startswith("B")]
    if loud:
        by_heat = sorted(
            (one.temperature, _mean(one.figures[-1]))
            for one in loud
            if one.row == loud[0].row and one.recipe == loud[0].recipe
        )
        known = [(heat, value) for heat, value in by_heat if value is not None]
        if len(known) > 1:
            yield (
                f"B's figures depend on the scale of its logits: {loud[0].row} scores "
                + ", ".join(f"{value:.1f} % at T = {heat:g}" for heat, value in known)
                + f" (ε {shown.spec.columns[-1].key}); a figure at T = 1 alone may show a "
                "saturated softmax and not a network that resists."
            )


def _table2(shown: Shown) -> Iterator[str]:
    gaps = list(_gaps(shown))
    if gaps:
        yield (
            "What PGD training gives is real, and less than FGSM shows: the adaptive attack "
            f"leaves {_span([one[2] for one in gaps])} % where FGSM leaves "
            f"{_span([one[1] for one in gaps])} %."
        )


def _table3(shown: Shown) -> Iterator[str]:
    cell = next(
        (one for one in shown.cells if one.row == "S64" and one.column.key == "accuracy"), None
    )
    if cell is None:
        return
    paper = _mean(cell.as_paper)
    ours = _best(cell)
    if ours is not None and cell.paper is not None:
        of = "the paper's" if cell.best is None else "our best"
        text = f"In the paper's setting S64 keeps {ours:.1f} % with {of} training"
        if cell.best is not None and paper is not None:
            text += f" and {paper:.1f} % with the paper's"
        yield f"{text}; the paper has {cell.paper.value:g} %."
    yield from _untrained(shown)
    left, best = _mean(cell.adaptive), _mean(cell.best)
    if left is not None and best is not None:
        yield f"Under the adaptive attack our best keeps {left:.1f} %."
        if left < best / 2:
            yield (
                "What the paper measured is an attack that stops too soon: early abort ends it, "
                "and one lucky draw at κ = 0 counts as success, so that fresh draws find many of "
                "its images right again. It is no network that resists."
            )
    found = shown.find("S64", "found")
    if _best(found) is not None:
        yield (f"The paper's attack took {_best(found):.1f} % of its own images for successes.")


def _untrained(shown: Shown) -> Iterator[str]:
    """Where the paper's training gives no network worth attacking, that must be said."""
    for cell in shown.cells:
        error = _mean(cell.as_paper)
        if cell.row != "S64" or cell.column.key != "error" or error is None or cell.paper is None:
            continue
        if error > 2 * cell.paper.value:
            yield (
                f"By the paper's training as it is written, S64 errs in {error:.0f} % of clean "
                f"images here (the paper: {cell.paper.value:g} %), so that its figures under "
                "attack say little; our best is the one to look at."
            )


def _table4(shown: Shown) -> Iterator[str]:
    gaps = list(_gaps(shown))
    if gaps:
        yield (
            "A substitute of 150 images is a weak adversary: within the same budget a white-box "
            f"attack leaves {_span([one[2] for one in gaps])} % where the transfer leaves "
            f"{_span([one[1] for one in gaps])} %. High figures here say that these images do not "
            "transfer, not that none would."
        )


def _table5(shown: Shown) -> Iterator[str]:
    yield "The images are a copy of CIFAR-10 in JPEG, which is lossy, where the records say so."
    yield from _table4(shown)


def _table6(shown: Shown) -> Iterator[str]:
    twin = shown.find("S64", "twin")
    own = shown.find("S64", "error")
    low, high = _best(twin), _best(own)
    if low is not None and high is not None:
        yield (
            f"S64 errs in {high:.2f} % of its draws, its deterministic twin sign(w) in {low:.2f} %"
            + (": the draws cost accuracy on clean images." if low < high else ".")
        )
    yield from _untrained(shown)


def _gaps(shown: Shown) -> Iterator[tuple[str, float, float]]:
    """Row, accuracy in the paper's setting, and under the adaptive attack, of the last column.

    Of our best networks alone, which are those that the adaptive attack is tried on.
    """
    last = shown.spec.columns[-1].key
    for cell in shown.cells:
        ours, left = _mean(cell.best), _mean(cell.adaptive)
        if cell.column.key == last and ours is not None and left is not None:
            yield cell.row, ours, left


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"
