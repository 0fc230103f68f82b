"""Counts what an inference costs on a board, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bnnmcu.backend.plan import Plan
from bnnmcu.data import Dataset
from bnnmcu.errors import ToolchainError
from bnnmcu.evaluate import draw_seeds
from bnnmcu.link.hello import CounterKind
from bnnmcu.target import Target

__all__ = ["BenchReport", "LayerCost", "bench"]


@dataclass(frozen=True)
class LayerCost:
    """One layer: its tables in bytes and its mean ticks."""

    name: str
    kernel: str
    macs: int
    bytes: int
    ticks: int


@dataclass(frozen=True)
class BenchReport:
    """Costs of one inference.

    Attributes:
        unit: what a tick is: ``instructions`` (emulated) or ``cycles``.
        total: mean ticks of a whole inference, of images without bytes on the
            wire meanwhile.
        least, most: over all inferences; equal if the count does not depend
            on the input.
        clock_hz: of the board, 0 if emulated.
        flash, ram, stack: bytes; of the ELF where it was built here, else None.
    """

    model: str
    target: str
    emulated: bool
    unit: str
    inferences: int
    layers: tuple[LayerCost, ...]
    total: int
    least: int
    most: int
    clock_hz: int
    flash: int | None
    ram: int | None
    stack: int | None
    toolchain: str | None

    @property
    def milliseconds(self) -> float | None:
        """Of one inference; None where there is no clock to measure with."""
        if self.emulated or not self.clock_hz:
            return None
        return 1000 * self.total / self.clock_hz

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: ticks stand under the name of their unit."""
        return {
            "model": self.model,
            "target": self.target,
            "emulated": self.emulated,
            "unit": self.unit,
            "inferences": self.inferences,
            "toolchain": self.toolchain,
            "layers": [
                {
                    "name": layer.name,
                    "kernel": layer.kernel,
                    "macs": layer.macs,
                    self.unit: layer.ticks,
                    "bytes": layer.bytes,
                }
                for layer in self.layers
            ],
            "total": {
                self.unit: self.total,
                "least": self.least,
                "most": self.most,
                "milliseconds": self.milliseconds,
                "flash": self.flash,
                "ram": self.ram,
                "stack": self.stack,
            },
        }


def bench(plan: Plan, target: Target, data: Dataset, *, seed: int = 1) -> BenchReport:
    """Run each image once, alone on the wire, and average the counters.

    Raises:
        ToolchainError: the board has no counter.
    """
    device, graph = target.device, plan.graph
    info = device.info
    if info.counter == CounterKind.NONE:
        raise ToolchainError(
            "this board has no working counter",
            where=target.label,
            hint="use --emulate qemu, which counts instructions exactly",
        )
    seeds = draw_seeds(seed, 0, len(data), 1)[:, 0]
    totals, layers = [], []
    for image, value in zip(data.images, seeds, strict=True):
        answer = device.infer(image, [int(value)])
        if not answer.polluted:
            totals.append(int(answer.ticks[0]))
            layers.append(device.counters())
    if not totals:
        raise ToolchainError(
            "bytes came in during every inference, so no count is clean",
            where=target.label,
            hint="close whatever else writes to the port",
        )
    means = np.rint(np.mean(np.stack(layers), axis=0)).astype(np.int64)
    # Only an emulator's timer runs with the instructions; DWT counts cycles.
    unit = "instructions" if target.emulated else "cycles"
    if not target.emulated and info.counter == CounterKind.TIMER:
        unit = "timer_ticks"
    build = target.build
    # Asked again: the inferences since the greeting have used the stack.
    deepest = device.connect().stack_free
    return BenchReport(
        model=graph.name,
        target=target.label,
        emulated=target.emulated,
        unit=unit,
        inferences=len(totals),
        layers=tuple(
            LayerCost(step.name, step.kernel, step.macs, step.flash_bytes, int(ticks))
            for step, ticks in zip(plan.steps, means, strict=True)
        ),
        total=round(float(np.mean(totals))),
        least=min(totals),
        most=max(totals),
        clock_hz=info.clock_hz,
        flash=build.flash_bytes if build else None,
        ram=build.ram_bytes if build else None,
        stack=build.stack_bytes - deepest if build and deepest else None,
        toolchain=f"{build.toolchain} {build.version}" if build else None,
    )
