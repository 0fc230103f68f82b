"""Instructions of every step of many networks, counted in one start of QEMU's MPS2 boards."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from many_models import Choices, each, write_models
from qemu_rig import MACHINES, build_image

from bnnmcu.backend.emit import template_bytes
from bnnmcu.backend.plan import DEFAULT_CHOICE, make_plan
from bnnmcu.graph import Graph

__all__ = ["PLAIN_SOURCES", "count_steps"]

_C = Path(__file__).resolve().parent.parent / "c"
_TIMEOUT_S = 300
#: What the plain kernels need; to compile all takes much longer.
PLAIN_SOURCES = ("bnn.c", "bnn_draw.c", "bnn_integer.c", "bnn_kernels.c", "bnn_values.c")
#: An instruction lasts 2 to the power of this, in ns: more than a tick of SysTick, of whose
#: 24 bits a step may use all.
_SHIFT = 6
#: Hz of SysTick: AN385 and AN386 run at 25 MHz, AN547 at 32 MHz.
_CLOCK = {"cortex-m55": 32_000_000}
_HEADER = """#include "bnn.h"

#define CORE_MODELS {models}u
#define CORE_ARENA_WORDS {words}u
#define CORE_PIXELS {pixels}u

extern const bnn_model_t *const core_models[CORE_MODELS];
"""


def count_steps(
    graphs: Sequence[Graph],
    folder: Path,
    core: str,
    choice: Choices = DEFAULT_CHOICE,
    sources: Sequence[str] = PLAIN_SOURCES,
) -> list[list[int]]:
    """Instructions of each step of each network, the caller's few included.

    Args:
        graphs: as many as fit the board's memory; their promise is at least ``count``.
        folder: for all files; must not exist.
        core: a key of ``qemu_rig.MACHINES``.
        choice: of the kernels; one for all, or one for each.
        sources: the C files of the runtime that are needed.
    """
    folder.mkdir(parents=True)
    machine = MACHINES[core]
    written = write_models(graphs, folder, native=False, choice=choice)
    files = [path for path in written if path.name.startswith("unit") or path.name in sources]
    plans = [make_plan(g, c) for g, c in zip(graphs, each(graphs, choice), strict=True)]
    header = _HEADER.format(
        models=len(graphs),
        words=max(plan.arena_words for plan in plans),
        pixels=max(h * w * c for h, w, c in (graph.input_shape for graph in graphs)),
    )
    names = [f"bnn_model_{i}" for i in range(len(graphs))]
    table = '#include "core_steps.h"\n' + "".join(f"extern const bnn_model_t {n};\n" for n in names)
    pointers = ", ".join(f"&{name}" for name in names)
    table += f"const bnn_model_t *const core_models[CORE_MODELS] = {{{pointers}}};\n"
    texts = {
        "core_steps.h": header.encode(),
        "core_models.c": table.encode(),
        "core_steps.c": (_C / "core_steps.c").read_bytes(),
        "bnn_memory.c": template_bytes("port/bnn_memory.c"),
    }
    for name, text in texts.items():
        (folder / name).write_bytes(text)
    files += [folder / name for name in texts if name.endswith(".c")]
    elf = build_image(folder, files, machine, "gcc")
    done = subprocess.run(
        [
            *("qemu-system-arm", "-M", machine.qemu, "-kernel", str(elf)),
            *("-display", "none", "-monitor", "none", "-serial", "none"),
            *("-semihosting-config", "enable=on,target=native", "-icount", f"shift={_SHIFT}"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stdout[-200:]}{done.stderr}"
    ticks = _CLOCK.get(core, 25_000_000) * 2**_SHIFT / 1e9
    found: list[list[int]] = [[] for _ in graphs]
    for line in (done.stdout + done.stderr).splitlines():
        model, step, count = map(int, line.split())
        assert step == len(found[model])
        found[model].append(round(count / ticks))
    return found
