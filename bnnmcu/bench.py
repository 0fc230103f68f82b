"""Counts what an inference costs on a board, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnnmcu.backend.plan import Plan
from bnnmcu.data import Dataset
from bnnmcu.errors import ToolchainError
from bnnmcu.evaluate import draw_seeds
from bnnmcu.link.hello import CounterKind
from bnnmcu.target import Target
from bnnmcu.toolchain.count_plugin import Span
from bnnmcu.toolchain.cycle_model import CycleModel

__all__ = ["BenchReport", "LayerCost", "bench"]


@dataclass(frozen=True)
class LayerCost:
    """One layer: its tables in bytes and its mean ticks.

    Attributes:
        kernel: the C function.
        option: its name among the alternatives of the plan.
        ticks: in the report's unit.
        cycles_modelled: mean, waits for the flash included; None without a model.
        functions: mean instructions by C function, where the plugin counted.
    """

    name: str
    kernel: str
    option: str
    macs: int
    bytes: int
    ticks: int
    cycles_modelled: int | None = None
    functions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchReport:
    """Costs of one inference.

    Attributes:
        unit: what a tick is: ``instructions`` (emulated), ``cycles`` or ``timer_ticks``.
        counted_by: what counted: ``plugin`` (exact), ``timer`` or ``DWT``.
        resolution: instructions that a single count may be off by; 0 if exact.
        total: mean ticks of a whole inference, of images without bytes on the
            wire meanwhile.
        least, most: over all inferences; equal if the count does not depend
            on the input.
        cycles_modelled, stalls_modelled: mean modelled cycles, and those of them
            that wait for the flash; None where nothing was modelled.
        cycle_model: what they were modelled by.
        clock_hz: of the board, 0 if emulated.
        flash, ram, stack: bytes; of the ELF where it was built here, else None.
            ``ram`` holds the reserved stack; ``stack`` is what was used of it.
    """

    model: str
    target: str
    emulated: bool
    unit: str
    counted_by: str
    resolution: int
    inferences: int
    layers: tuple[LayerCost, ...]
    total: int
    least: int
    most: int
    cycles_modelled: int | None
    stalls_modelled: int | None
    cycle_model: CycleModel | None
    clock_hz: int
    flash: int | None
    ram: int | None
    stack: int | None
    toolchain: str | None

    @property
    def milliseconds(self) -> float | None:
        """Of one inference, measured; None where there is no clock to measure with."""
        if self.emulated or self.unit != "cycles" or not self.clock_hz:
            return None
        return 1000 * self.total / self.clock_hz

    @property
    def milliseconds_modelled(self) -> float | None:
        """Of one inference, by the modelled cycles at the clock of the board's file."""
        if self.cycles_modelled is None or self.cycle_model is None:
            return None
        return 1000 * self.cycles_modelled / self.cycle_model.clock_hz

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: ticks stand under the name of their unit."""
        model = self.cycle_model
        return {
            "model": self.model,
            "target": self.target,
            "emulated": self.emulated,
            "unit": self.unit,
            "counted_by": self.counted_by,
            "resolution": self.resolution,
            "inferences": self.inferences,
            "toolchain": self.toolchain,
            "cycle_model": model
            and {
                "error": model.error,
                "clock_hz": model.clock_hz,
                "memory": model.memory,
                "compared_with_hardware": False,
            },
            "layers": [
                {
                    "name": layer.name,
                    "kernel": layer.kernel,
                    "option": layer.option,
                    "macs": layer.macs,
                    self.unit: layer.ticks,
                    "cycles_modelled": layer.cycles_modelled,
                    "bytes": layer.bytes,
                    "functions": dict(layer.functions),
                }
                for layer in self.layers
            ],
            "total": {
                self.unit: self.total,
                "least": self.least,
                "most": self.most,
                "cycles_modelled": self.cycles_modelled,
                "stalls_modelled": self.stalls_modelled,
                "milliseconds": self.milliseconds,
                "milliseconds_modelled": self.milliseconds_modelled,
                "flash": self.flash,
                "ram": self.ram,
                "stack": self.stack,
            },
        }


@dataclass
class _Counts:
    """What was counted, one entry an inference."""

    totals: list[int] = field(default_factory=list)
    layers: list[list[int]] = field(default_factory=list)
    spans: list[tuple[Span, ...]] = field(default_factory=list)


def bench(plan: Plan, target: Target, data: Dataset, *, seed: int = 1) -> BenchReport:
    """Run each image once, alone on the wire, and average the counters.

    In QEMU the counts are its plugin's, exact on every machine, where it could be
    loaded; otherwise the board's own counter's.

    Raises:
        ToolchainError: the board has no counter, no count is clean, or plugin and
            timer disagree.
    """
    device, plugin = target.device, target.plugin
    info = device.info
    if info.counter == CounterKind.NONE and plugin is None:
        raise ToolchainError(
            "this board has no working counter",
            where=target.label,
            hint="use --emulate qemu, which counts instructions exactly",
        )
    seeds = draw_seeds(seed, 0, len(data), 1)[:, 0]
    counts = _Counts()
    for image, value in zip(data.images, seeds, strict=True):
        answer = device.infer(image, [int(value)])
        ticks = [int(answer.ticks[0]), *(int(n) for n in device.counters())]
        spans = plugin.inferences(len(plan.steps)) if plugin else []
        # A request that was sent again may have been computed twice.
        if answer.polluted or (plugin and len(spans) != 1):
            continue
        if spans:
            _compare(spans[0], ticks, target)
            counts.spans += spans
            ticks = [span.instructions for span in spans[0]]
        counts.totals.append(ticks[0])
        counts.layers.append(ticks[1:])
    if not counts.totals:
        raise ToolchainError(
            "bytes came in during every inference, so no count is clean",
            where=target.label,
            hint="close whatever else writes to the port",
        )
    # Asked again: the inferences since the greeting have used the stack.
    unused = device.connect().stack_free
    return _report(plan, target, counts, unused)


def _compare(spans: Sequence[Span], ticks: Sequence[int], target: Target) -> None:
    """The plugin's counts against the board's timer, as far as that resolves them."""
    per_tick = target.instructions_per_tick
    if target.device.info.counter != CounterKind.TIMER or per_tick is None:
        return
    for span, count in zip(spans, ticks, strict=True):
        # Both readings of a coarse timer may be off by one tick.
        if abs(span.instructions - count * per_tick) > (0 if per_tick == 1 else 2 * per_tick):
            raise ToolchainError(
                f"QEMU's plugin counts {span.instructions:,} instructions, the board's timer "
                f"{count:,} ticks of {per_tick:g}",
                where=target.label,
                hint="this is a bug in bnnmcu: please report it with the version of QEMU",
            )


def _report(plan: Plan, target: Target, counts: _Counts, unused: int) -> BenchReport:
    info, build, plugin = target.device.info, target.build, target.plugin
    per_tick, resolution, unit, by = 1.0, 0, "instructions", "plugin"
    if not plugin:
        timer = info.counter == CounterKind.TIMER
        by = "timer" if timer else "DWT"
        # Only an emulator's timer runs with the instructions; DWT counts cycles.
        unit = "timer_ticks" if timer else "cycles"
        if target.emulated:
            unit, per_tick = "instructions", target.instructions_per_tick or 1.0
            resolution = round(2 * per_tick) if per_tick != 1 else 0
    model = plugin.model if plugin else None
    cycles: Any = None
    if model:
        cycles = np.array([[(s.cycles, s.stalls) for s in spans] for spans in counts.spans])
        cycles = np.rint(cycles.mean(axis=0)).astype(np.int64)
    means = np.rint(per_tick * np.mean(counts.layers, axis=0)).astype(np.int64)
    layers = tuple(
        LayerCost(
            step.name,
            step.kernel,
            step.option,
            step.macs,
            step.flash_bytes,
            int(means[i]),
            None if cycles is None else int(cycles[i + 1, 0]),
            _functions([spans[i + 1] for spans in counts.spans]),
        )
        for i, step in enumerate(plan.steps)
    )
    return BenchReport(
        model=plan.graph.name,
        target=target.label,
        emulated=target.emulated,
        unit=unit,
        counted_by=by,
        resolution=resolution,
        inferences=len(counts.totals),
        layers=layers,
        total=round(per_tick * float(np.mean(counts.totals))),
        least=round(per_tick * min(counts.totals)),
        most=round(per_tick * max(counts.totals)),
        cycles_modelled=None if cycles is None else int(cycles[0, 0]),
        stalls_modelled=None if cycles is None else int(cycles[0, 1]),
        cycle_model=model,
        clock_hz=info.clock_hz,
        flash=build.flash_bytes if build else None,
        ram=build.ram_bytes if build else None,
        stack=build.stack_bytes - unused if build else None,
        toolchain=f"{build.toolchain} {build.version}" if build else None,
    )


def _functions(spans: Sequence[Span]) -> dict[str, int]:
    """Mean instructions of each function, the most first."""
    sums: dict[str, int] = {}
    for span in spans:
        for name, count in span.functions.items():
            sums[name] = sums.get(name, 0) + count
    ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    return {name: round(count / len(spans)) for name, count in ordered}
