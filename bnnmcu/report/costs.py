"""What an inference costs and where memory goes, as sections of a report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnnmcu.backend.arena_picture import arena_svg
from bnnmcu.backend.plan import Plan
from bnnmcu.backend.project import Project, load_project
from bnnmcu.errors import BnnmcuError, StoreError, UsageError
from bnnmcu.report.charts import bars_figure, inline_svg
from bnnmcu.report.document import Picture, Section, Table
from bnnmcu.report.stored import StoredRun, printable

__all__ = ["BenchFile", "bench_section", "beside", "memory_section", "read_bench"]

# Far above any report of ours.
_MOST_BYTES = 4_000_000
_MOST_LAYERS = 1000
_UNITS = {"instructions", "cycles", "timer_ticks"}


@dataclass(frozen=True)
class BenchFile:
    """What ``bnnmcu bench --json`` printed, as far as a report shows it.

    Attributes:
        path: of the file.
        model, target, unit: as it says.
        emulated: no board was measured.
        layers: name, kernel, MACs, count, bytes of tables.
        total: count of an inference.
        inferences: that were counted.
    """

    path: Path
    model: str
    target: str
    unit: str
    emulated: bool
    layers: tuple[tuple[str, str, int, int, int], ...]
    total: int
    inferences: int

    @property
    def label(self) -> str:
        """The unit, and what it was counted on."""
        kind = "emulated" if self.emulated else "measured on hardware"
        return f"{self.unit.replace('_', ' ')} ({kind})"


def read_bench(path: Path) -> BenchFile:
    """Read what ``bnnmcu bench DIR --json`` printed.

    Raises:
        StoreError: it holds something else.
        UsageError: it cannot be read.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _not_ours(path, f"larger than {_MOST_BYTES:,} bytes")
        found = printable(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise UsageError(
            error.strerror or str(error),
            where=str(path),
            hint=f"bnnmcu bench DIR --emulate qemu --json > {path}",
        ) from None
    except (ValueError, RecursionError):
        raise _not_ours(path, "no JSON") from None
    try:
        unit = _text(found["unit"])
        layers = found["layers"]
        if unit not in _UNITS or not isinstance(layers, list) or len(layers) > _MOST_LAYERS:
            raise ValueError("unit or layers")
        return BenchFile(
            path,
            _text(found["model"]),
            _text(found["target"]),
            unit,
            found["emulated"] is not False,
            tuple(
                (
                    _text(one["name"]),
                    _text(one["kernel"]),
                    _count(one["macs"]),
                    _count(one[unit]),
                    _count(one["bytes"]),
                )
                for one in layers
            ),
            _count(found["total"][unit]),
            _count(found["inferences"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _not_ours(path, f"{type(error).__name__}: {error!s:.60}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 200:
        raise ValueError(f"{value!r:.40} is no name")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def _not_ours(path: Path, why: str) -> StoreError:
    return StoreError(
        f"this is not what 'bnnmcu bench --json' prints ({why})",
        where=str(path),
        hint=f"bnnmcu bench DIR --emulate qemu --json > {path}",
    )


def beside(run: StoredRun) -> Project | None:
    """The project in whose ``results`` folder a run is stored, if it is this network's."""
    folder = run.path.resolve().parent.parent
    if not (folder / "manifest.json").is_file():
        return None
    try:
        project = load_project(folder)
    except BnnmcuError:
        return None
    same = project.sha256.hex() == run.summary.identity["model"].get("sha256")
    return project if same else None


def bench_section(found: BenchFile, name: str) -> Section:
    """Counts layer by layer; within ``styled(inline=True)``.

    Args:
        name: of the picture on the page.
    """
    rows = tuple(
        (layer, kernel, f"{macs:,}", f"{count:,}", f"{size:,}")
        for layer, kernel, macs, count, size in found.layers
    )
    figure = bars_figure(
        [one[0] for one in found.layers], [one[3] for one in found.layers], found.label
    )
    title = f"{found.model}: {found.label}, layer by layer"
    pictures = (Picture("", title, svg=inline_svg(figure, name)),) if figure is not None else ()
    return Section(
        f"What an inference of {found.model} costs",
        paragraphs=(
            f"{found.total:,} {found.label} for one image, mean of {found.inferences} inferences, "
            f"on {found.target}; from {found.path.name}.",
        ),
        pictures=pictures,
        tables=(
            Table(
                title,
                ("layer", "kernel", "MACs", found.label, "tables, bytes"),
                rows,
                text_columns=2,
            ),
        ),
    )


def memory_section(project: Project, name: str) -> Section:
    """Predicted flash and RAM of a project; within ``styled(inline=True)``.

    Args:
        name: of the pictures on the page.
    """
    plan, board = project.plan, project.board
    pictures = list(estimated_pictures(plan, f"{name}e"))
    memory = project.manifest.get("memory")
    pictures += memory_pictures(memory if isinstance(memory, dict) else {}, name)
    pictures.append(arena_picture(plan))
    return Section(
        f"Memory of {project.graph.name} on {board.title}",
        paragraphs=(
            f"Predicted at export for {board.title}: {board.flash.size:,} bytes of flash, "
            f"{board.ram.size:,} of RAM. The linker has the last word ('bnnmcu build').",
        ),
        pictures=tuple(pictures),
    )


def estimated_pictures(plan: Plan, name: str) -> Iterator[Picture]:
    """Instructions of each layer by the cost model; within ``styled(inline=True)``."""
    figure = bars_figure(
        [step.name for step in plan.steps],
        [step.estimate.instructions for step in plan.steps],
        "instructions (estimated)",
    )
    if figure is not None:
        yield Picture(
            "",
            "Instructions of each layer as the compiler estimated them",
            "a model fitted to counts on the emulator; 'bnnmcu bench' counts",
            svg=inline_svg(figure, name),
        )


def arena_picture(plan: Plan) -> Picture:
    """The arena, as 'bnnmcu inspect --arena' draws it."""
    return Picture(
        "",
        "The arena: which buffer lies where, step by step",
        "upright: bytes; from left to right: steps of an inference. Buffers that are never "
        "needed at the same time share memory.",
        image=arena_svg(plan),
    )


def memory_pictures(memory: Mapping[str, object], name: str) -> Iterator[Picture]:
    """Flash and RAM by purpose, as an export predicted them; within ``styled(inline=True)``.

    Args:
        memory: ``Memory.to_dict()``; parts that are no sizes are left out.
        name: of the pictures on the page.
    """
    places = {
        "flash": ("tables", "code"),
        "RAM": ("arena", "buffers", "variables", "stack"),
    }
    for number, (place, parts) in enumerate(places.items()):
        found = (memory.get(part) for part in parts)
        sizes = [size for size in found if isinstance(size, int) and 0 <= size < 2**40]
        if len(sizes) != len(parts):
            continue
        figure = bars_figure(parts, sizes, "bytes")
        if figure is not None:
            title = f"{place}: {sum(sizes):,} bytes (predicted)"
            yield Picture("", title, svg=inline_svg(figure, f"{name}m{number}"))
