"""No kernel reads or writes outside its buffers: each stands between pages nobody may touch."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from forced import Forced, forced
from guard_rig import Side, guard_faults, guard_images

from bnnmcu import reference

_COUNT = 2
_SIDES: tuple[Side, ...] = ("begin", "end")


def _need_linux() -> str:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("pages are protected and faults reported as on Linux")
    compiler = next((name for name in ("gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        pytest.skip("neither gcc nor clang is installed")
    return compiler


def _expected(networks: list[Forced]) -> bytes:
    """Of images in turn; what is drawn is drawn twice."""
    out = b""
    for one in networks:
        images, seeds = guard_images(one.graph)
        logits = reference.run(one.graph, images, seeds)
        out += np.repeat(logits, 2 if one.plan.planes else 1, axis=1).tobytes()
    return out


@pytest.mark.parametrize("side", _SIDES)
def test_no_kernel_leaves_its_buffers(side: Side, tmp_path: Path) -> None:
    compiler = _need_linux()
    networks = forced(_COUNT, 600)
    graphs, choices = [one.graph for one in networks], [one.choice for one in networks]
    fault, logits = guard_faults(graphs, choices, tmp_path / "guard", side, compiler=compiler)
    assert fault == ""
    assert logits == _expected(networks)


#: What a function does wrong: a line of bnn_values.c, what it becomes, and the end that sees it.
_WRONG: dict[str, tuple[str, str, str, Side]] = {
    "reads a word behind its input": (
        "bnn_add",
        "out[i] = in[i] + other[i];",
        "out[i] = in[i] + other[i] + (((const volatile uint32_t *)in)[i + 1u] & 0u);",
        "end",
    ),
    "reads a word before its input": (
        "bnn_add",
        "out[i] = in[i] + other[i];",
        "out[i] = in[i] + other[i] + (((const volatile uint32_t *)in - 1)[i] & 0u);",
        "begin",
    ),
    "writes a word behind its result": (
        "bnn_clamp",
        "i < clamp->count",
        "i <= clamp->count",
        "end",
    ),
    "writes to its input": (
        "bnn_threshold_ints",
        "    bnn_compare(threshold, BNN_INTS, in, out);",
        "    *(volatile uint32_t *)(uintptr_t)in = in[0];\n"
        "    bnn_compare(threshold, BNN_INTS, in, out);",
        "begin",
    ),
    "reads a byte behind the image": (
        "bnn_threshold_pixels",
        "    bnn_compare(threshold, BNN_PIXELS, in, out);",
        "    (void)((const volatile uint8_t *)in)[threshold->positions * threshold->channels];\n"
        "    bnn_compare(threshold, BNN_PIXELS, in, out);",
        "end",
    ),
}


@pytest.mark.parametrize("what", _WRONG)
def test_what_leaves_its_buffers_is_caught(what: str, tmp_path: Path) -> None:
    """Or the test above would prove nothing."""
    compiler = _need_linux()
    function, line, wrong, side = _WRONG[what]

    def edit(name: str, text: str) -> str:
        if name != "bnn_values.c":
            return text
        assert text.count(line) == 1
        return text.replace(line, wrong)

    one = next(n for n in forced(1, 600) if any(s.kernel == function for s in n.plan.steps))
    folder = tmp_path / "guard"
    fault, _ = guard_faults([one.graph], [one.choice], folder, side, compiler=compiler, edit=edit)
    assert "left its buffers" in fault
    names = [step.label for step in one.plan.steps if step.kernel == function]
    assert any(f": {name} left" in fault for name in names)
