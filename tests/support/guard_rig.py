"""Networks on this machine with every buffer between pages that nobody may touch.

The plan's arena is spread out so that each buffer has pages of its own.  ``tests/c/core_guard.c``
opens to each layer only what it reads and writes; a word more ends the program.
"""

from __future__ import annotations

import mmap
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from many_models import write_models
from twin_check import inputs

from bnnmcu.backend import plan as planning
from bnnmcu.backend.arena import Placed, Request
from bnnmcu.backend.plan import KernelChoice, Plan, make_plan
from bnnmcu.graph import Graph

__all__ = ["Side", "guard_faults", "guard_images"]

Side = Literal["begin", "end"]
_C = Path(__file__).resolve().parent.parent / "c"
_TIMEOUT_S = 300
_IMAGES = 3
_PAGE = mmap.PAGESIZE
_PAGE_WORDS = _PAGE // 4
_HEADER = """#include "bnn.h"

typedef struct core_buffer {{
    uint32_t pages, bytes; /* where its pages begin in the arena */
}} core_buffer_t;

/* rights: for each layer those to the image, then to each buffer; 0 none, 1 read, 2 both. */
typedef struct core_guarded {{
    const bnn_model_t *model;
    const core_buffer_t *places;
    const uint8_t *rights;
    unsigned buffers;
}} core_guarded_t;

#define CORE_PAGE {page}
#define CORE_IMAGES {images}u
#define CORE_AT_END {at_end}
#define CORE_MODELS {models}u
extern const core_guarded_t core_guarded[CORE_MODELS];
"""


def _pages(words: int) -> int:
    return -(-words // _PAGE_WORDS)


def _spread(side: Side) -> Callable[[Sequence[Request]], tuple[dict[str, Placed], int]]:
    """A placement with pages of its own for each buffer, and one between them."""

    def place(requests: Sequence[Request]) -> tuple[dict[str, Placed], int]:
        placed, at = {}, 1
        for r in requests:
            size = _pages(r.words)
            start, end = at * _PAGE_WORDS, (at + size) * _PAGE_WORDS
            offset = start if side == "begin" else end - r.words
            placed[r.name] = Placed(r.name, offset, r.words, r.first, r.last)
            at += size + 1
        return placed, at * _PAGE_WORDS

    return place


def _rights(plan: Plan) -> list[int]:
    """For each layer: of the image, then of every buffer."""
    table = []
    for step in plan.steps:
        writes = {step.result.name} | ({step.scratch.name} if step.scratch else set())
        reads = {source.name for source in step.sources if source}
        table.append(1 if None in step.sources else 0)
        table += [2 if b.name in writes else 1 if b.name in reads else 0 for b in plan.buffers]
    return table


def _table(plan: Plan, i: int) -> str:
    starts = [(b.offset // _PAGE_WORDS * _PAGE, 4 * b.words) for b in plan.buffers]
    places = ", ".join(f"{{{start}u, {size}u}}" for start, size in starts)
    rights = ", ".join(map(str, _rights(plan)))
    return (
        f"extern const bnn_model_t bnn_model_{i};\n"
        f"static const core_buffer_t places_{i}[] = {{{places}}};\n"
        f"static const uint8_t rights_{i}[] = {{{rights}}};\n"
    )


def _write(
    graphs: Sequence[Graph], choices: Sequence[KernelChoice], folder: Path, side: Side
) -> list[Path]:
    with patch.object(planning, "place", _spread(side)):
        files = write_models(graphs, folder, native=False, choice=choices)
        plans = [make_plan(g, c) for g, c in zip(graphs, choices, strict=True)]
    rows = [
        f"{{&bnn_model_{i}, places_{i}, rights_{i}, {len(plan.buffers)}u}}"
        for i, plan in enumerate(plans)
    ]
    text = '#include "core_guard.h"\n' + "".join(_table(p, i) for i, p in enumerate(plans))
    text += f"const core_guarded_t core_guarded[CORE_MODELS] = {{{', '.join(rows)}}};\n"
    (folder / "core_guard.h").write_text(
        _HEADER.format(page=_PAGE, images=_IMAGES, at_end=int(side == "end"), models=len(graphs))
    )
    (folder / "core_models.c").write_text(text)
    (folder / "core_guard.c").write_bytes((_C / "core_guard.c").read_bytes())
    return [*files, folder / "core_models.c", folder / "core_guard.c"]


def guard_images(graph: Graph) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
    """The images (N, H, W, C) that are inferred, and their seeds (N, 1)."""
    images, seeds = inputs(graph)
    return images[:_IMAGES], seeds[:_IMAGES, :1]


def guard_faults(
    graphs: Sequence[Graph],
    choices: Sequence[KernelChoice],
    folder: Path,
    side: Side,
    *,
    compiler: str = "gcc",
    edit: Callable[[str, str], str] | None = None,
) -> tuple[str, bytes]:
    """What a layer did outside its buffers, or nothing; and all logits, int64.

    Args:
        choices: of the kernels, one for each network.
        folder: for all files; must not exist.
        side: the end of each buffer that a page nobody may touch follows at once.
        edit: what becomes of each file of the runtime, for kernels that are wrong.

    Returns:
        the first fault, and the logits (images, classes) of each network in turn; of those
        with drawn weights twice for each image, as they are redrawn too.
    """
    folder.mkdir(parents=True)
    files = _write(graphs, choices, folder, side)
    for path in folder.glob("bnn_*.[ch]") if edit is not None else ():
        path.write_text(edit(path.name, path.read_text()))
    built = subprocess.run(
        [
            *(compiler, "-std=c99", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror"),
            *("-o", str(folder / "guard"), f"-I{folder}", *map(str, files)),
        ],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    requests = b""
    for graph in graphs:
        for image, seed in zip(*guard_images(graph), strict=True):
            requests += image.tobytes() + struct.pack("=Q", int(seed[0]))
    done = subprocess.run(
        [str(folder / "guard")],
        input=requests,
        capture_output=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    error = done.stderr.decode(errors="replace")
    assert done.returncode in (0, 3), error
    assert bool(error) == bool(done.returncode), error
    return error, done.stdout
