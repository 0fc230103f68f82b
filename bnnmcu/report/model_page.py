"""The page of a network on a board: what it is, how it was compiled, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bnnmcu import __version__
from bnnmcu.backend.fit import Fit
from bnnmcu.backend.memory import Memory
from bnnmcu.backend.plan import Plan
from bnnmcu.boards import Board
from bnnmcu.graphfile import graph_sha256
from bnnmcu.inspect import describe, graph_svg
from bnnmcu.passes import Lowering
from bnnmcu.report.cells import NONE
from bnnmcu.report.charts.style import styled
from bnnmcu.report.costs import arena_picture, estimated_pictures, memory_pictures
from bnnmcu.report.document import Document, Picture, Section, Table, Verdict
from bnnmcu.report.fit_table import fit_table

__all__ = ["model_page"]

_FORMAT, _VERSION = "bnnmcu-model-report", 1


def model_page(
    plan: Plan,
    memory: Memory,
    board: Board,
    fits: Sequence[Fit],
    *,
    lowering: Lowering | None = None,
    training: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> Document:
    """A page about a network and one board; the same input gives the same page.

    Args:
        plan, memory: as they were exported.
        fits: the network on all boards.
        lowering: how it was compiled; None where that is not known.
        training: what the model file says of it.
        command: that makes the same export again.

    Raises:
        MissingDependencyError: there is no matplotlib.
    """
    graph = plan.graph
    sha256 = graph_sha256(graph).hex()
    share = 100 * memory.flash / memory.board_flash, 100 * memory.ram / memory.board_ram
    verdict = Verdict(
        "good" if max(share) <= 100 else "bad",
        f"{memory.flash:,} bytes of flash ({share[0]:.0f} %) and {memory.ram:,} of RAM "
        f"({share[1]:.0f} %) on {board.title}, predicted for {memory.toolchain} "
        f"{memory.compiler}; {sum(one.fits for one in fits)} of {len(fits)} boards can hold "
        f"{graph.name}.",
    )
    with styled(inline=True):
        sections = (
            _network(plan, sha256, training or {}),
            *_quantisation(lowering),
            _kernels(plan),
            Section(
                f"Memory on {board.title}",
                paragraphs=(
                    "Tables and arena are exact, code is as measured of that compiler or an "
                    "allowance; 'bnnmcu build' holds the prediction against the linker.",
                ),
                pictures=(*memory_pictures(memory.to_dict(), "m"), arena_picture(plan)),
            ),
            Section("Other boards", tables=(fit_table(graph.name, fits),)),
            _again(sha256, command),
        )
    facts = {"format": _FORMAT, "version": _VERSION, "sha256": sha256, "board": board.name}
    return Document(f"{graph.name} on {board.title}", sections, facts, verdict)


def _network(plan: Plan, sha256: str, training: Mapping[str, Any]) -> Section:
    description = describe(plan.graph)
    rows = tuple(
        (
            row.name,
            f"{row.operation} {row.detail}".strip(),
            "x".join(map(str, row.shape)),
            row.kind,
            NONE if row.low is None or row.high is None else f"{row.low:,} to {row.high:,}",
            f"{row.parameters:,}",
            f"{row.macs:,}",
        )
        for row in description.rows
    )
    known = [
        f"{name}: {value}"
        for name, value in sorted(training.items())
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    ]
    drawn = (
        "its weights are drawn anew for each inference"
        if plan.graph.stochastic
        else "it draws nothing: an image has one answer"
    )
    return Section(
        "The network",
        paragraphs=(
            f"{description.parameters:,} parameters, {description.macs:,} multiply-accumulates an "
            f"image; {drawn}. SHA-256 of the integer network: {sha256}.",
        ),
        points=tuple(known),
        tables=(
            Table(
                "operations of the integer network",
                ("layer", "operation", "shape", "value", "range", "parameters", "MACs"),
                rows,
                text_columns=4,
                caption="shapes are rows x columns x channels; ranges hold for every image",
            ),
        ),
        pictures=(
            Picture(
                "",
                "The network after compilation",
                "boxes are operations, arrows are values",
                image=graph_svg(description),
            ),
        ),
    )


def _quantisation(lowering: Lowering | None) -> Iterator[Section]:
    if lowering is None:
        return
    rows = tuple(
        (
            error.layer,
            f"{error.bits} bits" if error.bits else "exact",
            f"{100 * error.worst:.4f} %" if error.bits else NONE,
            f"{100 * error.rms:.4f} %" if error.bits else NONE,
        )
        for error in lowering.errors
    )
    table = Table(
        "what quantisation lost",
        ("layer", "weights", "worst error", "typical error"),
        rows,
        text_columns=2,
        caption="worst: of the largest weight; typical: root mean square, of the weights'",
    )
    passes = Table(
        "passes",
        ("pass", "what it does", "changes"),
        tuple((step.name, step.text, f"{step.changes:,}") for step in lowering.snapshots),
        text_columns=2,
    )
    yield Section(
        "How it was compiled",
        points=tuple(f"{item.where}: {item.text}" for item in lowering.notes),
        tables=(*([table] if rows else []), passes),
    )


def _kernels(plan: Plan) -> Section:
    rows = []
    for step in plan.steps:
        for other in step.report():
            rows.append(
                (
                    step.name,
                    ("→ " if other["chosen"] else "") + other["option"],
                    f"{other['instructions']:,}",
                    f"{other['cycles']:,}",
                    f"{other['flash']:,}",
                    f"{other['ram']:,}",
                    other["constant"],
                )
            )
    return Section(
        "Kernels",
        paragraphs=(
            f"Chosen for: {plan.choice.optimize}; of what was chosen, no input changes: "
            f"{'nothing is promised' if plan.promise == 'none' else plan.promise}.",
        ),
        tables=(
            Table(
                "every kernel that could compute a layer",
                ("layer", "kernel", "instructions", "cycles", "flash", "RAM", "constant"),
                tuple(rows),
                text_columns=2,
                caption="→ was chosen; instructions are estimated, cycles modelled; bytes of flash "
                "and of RAM; constant: what no image and no draw changes, the time or the count of "
                "instructions",
            ),
        ),
        pictures=tuple(estimated_pictures(plan, "k")),
    )


def _again(sha256: str, command: str | None) -> Section:
    points = [f"bnnmcu {__version__}; the integer network has SHA-256 {sha256}"]
    if command:
        points.insert(0, command)
    points.append("the same model, board and version give the same C, byte for byte, and this page")
    return Section("How to repeat it", points=tuple(points))
