"""The comparison with other makers: that its rig counts right, and finds what answers wrong.

The peers themselves are packages that only ``make bench-peers`` installs.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from needs import need_digits, need_emulator, need_toolchain

from bnnmcu.data import load_digits

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"
PEERS = BENCHMARKS / "peers"

#: A peer of ours whose cost is known: a loop of two instructions, and an array on the stack.
LOOPS, ARRAY = 50_000, 2048
ADAPTER = """
#include "peer.h"

static uint32_t sum;
static uint8_t input[PEER_PIXELS];
static volatile uint32_t table[TABLE] = {1};

void peer_prepare(const uint8_t pixels[PEER_PIXELS], uint32_t seed)
{
    sum = seed + table[1];
    for (unsigned i = 0; i < PEER_PIXELS; i++) {
        input[i] = pixels[i];
    }
}

int peer_run(void)
{
    volatile uint8_t array[ARRAY];

    array[0] = 1;
    for (unsigned i = 0; i < PEER_PIXELS; i++) {
        sum += input[i];
    }
#if defined(__arm__)
    uint32_t left = LOOPS;
    __asm__ volatile("1:\\n\\tsubs %0, %0, #1\\n\\tbne 1b" : "+r"(left) : : "cc");
#endif
    return array[0] - 1;
}

uint64_t peer_logit(unsigned index)
{
    return (uint64_t)(-(int64_t)sum * (int64_t)index);
}
"""


@pytest.fixture(scope="module")
def run() -> ModuleType:
    """``benchmarks/peers/run.py``."""
    path = list(sys.path)
    sys.path.insert(0, str(PEERS))
    try:
        import run as module  # type: ignore[import-not-found]
    finally:
        sys.path[:] = path
    assert Path(module.__file__ or "").parent == PEERS
    return module


def _source(run: ModuleType, folder: Path, table: int = 1000) -> Any:
    adapter = folder / "own" / "adapter.c"
    adapter.parent.mkdir(parents=True)
    defines = f"#define LOOPS {LOOPS}u\n#define ARRAY {ARRAY}u\n#define TABLE {table}u\n"
    adapter.write_text(defines + ADAPTER)
    # No C library: the compiler must not make a call of the loop that copies.
    flags = ("-ffreestanding", "-fno-tree-loop-distribute-patterns")
    return run.rig.Source(folder, str(adapter), (), flags=flags, libraries=("-lgcc",))


def _expected(digits: Any) -> Any:
    sums = digits.reshape(len(digits), -1).sum(axis=1) + np.arange(len(digits))
    return -sums[:, np.newaxis] * np.arange(10.0)


def _need_everything() -> None:
    need_emulator("qemu")
    need_toolchain("gcc")
    need_digits()
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")


def test_the_rig_counts_what_is_known(run: ModuleType, tmp_path: Path) -> None:
    """The same instructions and stack on both machines."""
    _need_everything()
    digits = load_digits().images[:3]
    counted = {}
    for machine, stack in run.rig.MACHINES.items():
        source = _source(run, tmp_path / machine)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run.rig, "MACHINES", {machine: stack})
            built = run.rig.build(source, digits)
        assert built.machine == machine
        # Its initialised table is in flash and in RAM; digits and rig are in neither.
        assert 4000 < built.flash < 4400
        assert 4000 + 784 + 4 <= built.ram < 4000 + 784 + 40
        counted[machine] = run.rig.count(source, built)
        assert np.array_equal(counted[machine].logits, _expected(digits))
        assert ARRAY <= counted[machine].stack < ARRAY + 200
    exact, coarse = (c.instructions for c in counted.values())
    assert len(set(exact)) == 1
    # The sum over the pixels takes one to eight instructions a pixel, unrolled or not.
    assert 2 * LOOPS + 784 < exact[0] < 2 * LOOPS + 8 * 784
    assert all(abs(a - b) <= 40 for a, b in zip(exact, coarse, strict=True))


def test_a_row_is_measured_and_a_wrong_one_refused(run: ModuleType, tmp_path: Path) -> None:
    _need_everything()
    run.BUILD, kept = tmp_path / "build", run.BUILD
    data = load_digits().stratified(40)

    def row(key: str, expected: Any, tolerance: float = 0.0) -> Any:
        def make(folder: Path) -> Any:
            return run.networks.Peer(_source(run, folder), expected, 10, tolerance)

        return run.Row(key, "a sum", "this test", "integers", None, make)

    try:
        answers: dict[str, Any] = {}
        found = run.measure(row("right", _expected), data, answers)
        assert found["instructions"] > 2 * LOOPS
        assert found["fits"] is True
        assert found["machine"] == "netduinoplus2"
        share = (_expected(data.images).argmax(axis=1) == data.labels).mean()
        assert found["correct"] == round(float(share), 4)
        assert np.array_equal(answers["right"], _expected(data.images))
        with pytest.raises(ValueError, match="against its reference"):
            run.measure(row("wrong", lambda digits: _expected(digits) + 1), data, answers)
        close = row("close", lambda digits: _expected(digits) * (1 + 1e-6), 1e-5)
        assert run.measure(close, data, answers)["correct"] == found["correct"]
    finally:
        run.BUILD = kept


def test_what_does_not_build_says_why(run: ModuleType, tmp_path: Path) -> None:
    _need_everything()
    digits = load_digits().images[:1]
    source = _source(run, tmp_path / "broken")
    (tmp_path / "broken" / "own" / "adapter.c").write_text('#include "not_there.h"\n')
    with pytest.raises(run.rig.PeerError, match=r"not_there\.h"):
        run.rig.build(source, digits)
    large = _source(run, tmp_path / "large", table=2 << 20)
    with pytest.raises(run.rig.PeerError, match="overflow"):
        run.rig.build(large, digits)


def test_a_network_of_ours_in_the_rig(run: ModuleType, tmp_path: Path) -> None:
    _need_everything()
    digits = load_digits().stratified(2).images
    peer = run.networks.ours("s64", "balanced", tmp_path / "s64")
    counted = run.rig.count(peer.source, run.rig.build(peer.source, digits))
    assert np.array_equal(counted.logits, peer.expected(digits))


def test_the_page_is_that_of_the_record(run: ModuleType) -> None:
    record = json.loads((BENCHMARKS / "peers.json").read_text())
    assert (BENCHMARKS / "PEERS.md").read_text() == run.page(record)
    images = np.zeros((1, 28, 28, 1), dtype=np.uint8)
    assert list(record["rows"]) == [row.key for row in run.rows(images)]
    pinned = re.findall(r"^(\S+)==(\S+)$", (PEERS / "requirements.txt").read_text(), re.MULTILINE)
    assert dict(pinned).items() <= record["versions"].items()
    assert record["flags"] == " ".join(run.rig.FLAGS)
