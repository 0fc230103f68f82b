"""What ``bench`` makes of a board's counters and of the plugin's, with stand-ins for both."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bnnmcu.bench import BenchReport, bench
from bnnmcu.data import noise
from bnnmcu.errors import ToolchainError
from bnnmcu.link.hello import CounterKind
from bnnmcu.toolchain.count_plugin import Span
from bnnmcu.toolchain.cycle_model import CycleModel

_PLAN: Any = SimpleNamespace(
    graph=SimpleNamespace(name="net"),
    steps=[
        SimpleNamespace(name=name, kernel=f"bnn_{name}", option="plain", macs=10, flash_bytes=7)
        for name in ("one", "two")
    ],
)
_MODEL = CycleModel(4, 0.2, 50_000_000, 0, None)
# Ticks of an inference and of its two layers, image by image.
_TICKS = ((100, 60, 30), (104, 60, 34))


def _target(
    ticks: tuple[tuple[int, ...], ...] = _TICKS,
    *,
    counter: CounterKind = CounterKind.TIMER,
    clock_hz: int = 0,
    polluted: bool = False,
    plugin: Any = None,
    per_tick: float | None = 1.0,
) -> Any:
    runs = iter(ticks)
    current: list[tuple[int, ...]] = []

    def infer(image: Any, seeds: list[int]) -> Any:
        current[:] = [next(runs)]
        return SimpleNamespace(ticks=np.array([current[0][0]]), polluted=polluted)

    info = SimpleNamespace(counter=counter, clock_hz=clock_hz, stack_free=1000)
    device = SimpleNamespace(
        info=info,
        infer=infer,
        counters=lambda: np.array(current[0][1:]),
        connect=lambda: info,
    )
    build = SimpleNamespace(
        flash_bytes=5000, ram_bytes=3000, stack_bytes=2048, toolchain="gcc", version="12"
    )
    return SimpleNamespace(
        device=device,
        label="board",
        emulated=clock_hz == 0,
        plugin=plugin,
        build=None if clock_hz else build,
        instructions_per_tick=per_tick,
    )


def _plugin(*instructions: tuple[int, ...], model: CycleModel | None = _MODEL) -> Any:
    """One entry an image: instructions of the whole inference and of the layers."""
    images = iter(instructions)

    def inferences(layers: int) -> list[tuple[Span, ...]]:
        assert layers == 2
        return [tuple(Span(n, 2 * n, n // 2, {"f": n - 1, "g": 1}) for n in next(images))]

    return SimpleNamespace(model=model, inferences=inferences)


def _bench(target: Any) -> BenchReport:
    return bench(_PLAN, target, noise((4, 4, 1), 2))


@pytest.mark.parametrize(
    ("target", "unit", "by", "total", "layers", "resolution"),
    [
        ({}, "instructions", "timer", 102, [60, 32], 0),
        ({"per_tick": 40.0}, "instructions", "timer", 4080, [2400, 1280], 80),
        ({"clock_hz": 1000, "counter": CounterKind.CYCLES}, "cycles", "DWT", 102, [60, 32], 0),
        ({"clock_hz": 1000}, "timer_ticks", "timer", 102, [60, 32], 0),
    ],
)
def test_the_boards_own_counter(
    target: dict[str, Any], unit: str, by: str, total: int, layers: list[int], resolution: int
) -> None:
    report = _bench(_target(**target))
    assert (report.unit, report.counted_by, report.total) == (unit, by, total)
    assert [layer.ticks for layer in report.layers] == layers
    assert report.resolution == resolution
    assert report.cycles_modelled is None
    assert report.milliseconds_modelled is None
    # Only cycles of a real board are a time.
    measured = report.milliseconds is not None
    assert measured == (unit == "cycles")
    assert report.to_dict()["total"][unit] == total


def test_measured_milliseconds_and_no_build() -> None:
    report = _bench(_target(clock_hz=50_000_000, counter=CounterKind.CYCLES))
    assert report.milliseconds == pytest.approx(102 / 50_000)
    assert (report.flash, report.ram, report.stack) == (None, None, None)


def test_the_plugins_counts_are_exact_where_the_timer_is_coarse() -> None:
    plugin = _plugin((4010, 2390, 1207), (4170, 2391, 1371))
    report = _bench(_target(plugin=plugin, per_tick=40.0))
    assert (report.counted_by, report.resolution) == ("plugin", 0)
    assert (report.total, report.least, report.most) == (4090, 4010, 4170)
    assert [layer.ticks for layer in report.layers] == [2390, 1289]
    assert [layer.cycles_modelled for layer in report.layers] == [4781, 2578]
    assert report.layers[1].functions == {"f": 1288, "g": 1}
    assert report.milliseconds is None
    assert report.milliseconds_modelled == pytest.approx(2 * 4090 / 50_000)
    assert (report.flash, report.ram, report.stack) == (5000, 3000, 1048)


def test_without_a_model_there_are_no_cycles() -> None:
    plugin = _plugin(*_TICKS, model=None)
    report = _bench(_target(plugin=plugin))
    assert report.cycles_modelled is None
    assert report.stalls_modelled is None
    assert report.to_dict()["cycle_model"] is None
    assert [layer.cycles_modelled for layer in report.layers] == [None, None]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"counter": CounterKind.NONE}, "no working counter"),
        ({"polluted": True}, "no count is clean"),
        # Of single instructions not one may be missing; of ticks of 40, two.
        ({"plugin": _plugin((101, 60, 30), (104, 60, 34))}, "101 instructions"),
        ({"plugin": _plugin((100, 60, 31), (104, 60, 34))}, "31 instructions"),
        ({"plugin": _plugin((4081, 2400, 1200), (0, 0, 0)), "per_tick": 40.0}, "4,081"),
    ],
)
def test_what_cannot_be_trusted_is_refused(target: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolchainError, match=message):
        _bench(_target(**target))


def test_a_board_without_a_counter_has_the_plugin() -> None:
    target = _target(counter=CounterKind.NONE, per_tick=None, plugin=_plugin(*_TICKS))
    assert _bench(target).total == 102


def test_what_was_computed_twice_is_not_counted() -> None:
    twice = _plugin(*_TICKS)
    once = twice.inferences
    first: list[Any] = []

    def inferences(layers: int) -> Any:
        first.append(once(layers))
        return first[0] * 2 if len(first) == 1 else first[-1]

    twice.inferences = inferences
    report = _bench(_target(plugin=twice))
    assert (report.inferences, report.total) == (1, 104)
