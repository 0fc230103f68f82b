"""Integer executions against each other: every value must be the same, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.backend.emit import MODEL_FILES
from bnnmcu.backend.folder import runtime_files
from bnnmcu.backend.project import Project
from bnnmcu.compare.report import Parting, Stage
from bnnmcu.errors import ModelFileError
from bnnmcu.graph import ALWAYS, GE, LE, Graph, Threshold
from bnnmcu.link.device import Device
from bnnmcu.reference import sampled_words

__all__ = ["BoardComparison", "TwinComparison", "first_difference", "project_sources"]

Values = Mapping[str, npt.NDArray[Any]]


def project_sources(project: Project) -> dict[str, bytes]:
    """The C of a project that computes its network, as it stands in the folder.

    Raises:
        ModelFileError: a file is missing.
    """
    found = {}
    for name in (*MODEL_FILES, *runtime_files()):
        path = project.folder / ("include" if name.endswith(".h") else "src") / name
        if not path.is_file():
            raise ModelFileError("a file is missing", where=str(path), hint="export again")
        found[name] = path.read_bytes()
    return found


def first_difference(one: Graph, other: Graph) -> str:
    """Where two graphs are not the same network, in words; empty if they are."""
    if one.input_shape != other.input_shape or len(one.nodes) != len(other.nodes):
        return "they have other layers"
    for left, right in zip(one.nodes, other.nodes, strict=True):
        if (left.name, type(left), left.sources) != (right.name, type(right), right.sources):
            return f"{left.name} is another layer: {right.name}"
        for field, mine in vars(left).items():
            theirs = getattr(right, field)
            if isinstance(mine, np.ndarray) and isinstance(theirs, np.ndarray):
                if mine.shape != theirs.shape:
                    return f"{left.name}: {field} has another shape"
                if (mine != theirs).any():
                    count = int((mine != theirs).sum())
                    channel = int(np.argwhere(mine != theirs)[0][0])
                    return (
                        f"{left.name}: {count} of {mine.size} {field} differ, "
                        f"first in channel {channel}"
                    )
            elif field != "surrogate" and type(mine) is not type(theirs):
                return f"{left.name}: {field} is there in one of them only"
            elif field != "surrogate" and not isinstance(mine, np.ndarray) and mine != theirs:
                return f"{left.name}: {field} is {mine}, and {theirs}"
    if one.generator != other.generator:
        return f"the generator is {one.generator}, and {other.generator}"
    return ""


def _compared(rule: Threshold, channel: int) -> str:
    kind, value = int(rule.kind[channel]), int(rule.value[channel])
    return {GE: f"at least {value:,}", LE: f"at most {value:,}", ALWAYS: "always"}.get(
        kind, "never"
    )


@dataclass
class TwinComparison:
    """Reference against compiled C, step by step.

    Attributes:
        graph: the reference's.
        steps: for the last node of each step, all its nodes.
    """

    graph: Graph
    steps: Mapping[str, Sequence[str]]
    right: str
    compared: int = 0
    differing: int = 0
    first: Parting | None = None

    def add(self, reference: Values, twin: Values, *, index: int, seed: int) -> None:
        """Compare one image: values (H, W, C) of the graph's nodes."""
        for name, value in twin.items():
            expected = reference[name].reshape(value.shape)
            unequal = expected.astype(np.int64) != value.astype(np.int64)
            self.compared += value.size
            self.differing += int(unequal.sum())
            if self.first is None and unequal.any():
                row, column, channel = (int(i) for i in np.argwhere(unequal)[0])
                self.first = Parting(
                    index,
                    seed,
                    name,
                    name,
                    channel,
                    row,
                    column,
                    int(expected[row, column, channel]),
                    int(value[row, column, channel]),
                    self._text(name, unequal, reference, expected, value, (row, column, channel)),
                )

    def _text(
        self,
        name: str,
        unequal: npt.NDArray[np.bool_],
        reference: Values,
        expected: npt.NDArray[Any],
        value: npt.NDArray[Any],
        at: tuple[int, int, int],
    ) -> str:
        channels = np.unique(np.argwhere(unequal)[:, 2])
        text = f"{int(expected[at]):,} in the reference, {int(value[at]):,} in C"
        nodes = {node.name: node for node in self.graph.nodes}
        node = nodes.get(name)
        if isinstance(node, Threshold) and node.source in reference:
            total = int(reference[node.source][at])
            text += f"; the sum is {total:,}, the bit is 1 {_of(_compared(node, at[2]))}"
        others = [step for step in self.steps.get(name, ()) if step != name]
        if others:
            text += f"; {', '.join(others)} is part of this step"
        return f"{text}; {len(channels)} of {unequal.shape[2]} channels differ in it"

    def stage(self) -> Stage:
        """The whole, as one stage."""
        return Stage(
            "integer graph",
            self.right,
            self.compared,
            self.differing,
            self.differing,
            self.first,
            self.first,
        )


def _of(rule: str) -> str:
    return rule if rule in ("always", "never") else f"from a sum of {rule}"


@dataclass
class BoardComparison:
    """Reference against a board, which gives logits and drawn weights and nothing between."""

    graph: Graph
    device: Device
    label: str
    compared: int = 0
    differing: int = 0
    first: Parting | None = None

    def add(
        self,
        image: npt.NDArray[np.uint8],
        expected: npt.NDArray[np.int64],
        *,
        index: int,
        seed: int,
    ) -> npt.NDArray[np.int64]:
        """Compare the logits (classes,) of one image; gives the board's."""
        answered = self.device.infer(image, [seed]).logits[0]
        self._count(self.graph.nodes[-1].name, expected, answered, (index, seed), "logit")
        return np.asarray(answered, dtype=np.int64)

    def add_draws(self, seed: int) -> None:
        """Compare the weights that a seed draws on the board."""
        # Paired by order: the device may have shortened a name.
        layers = [i for i, layer in enumerate(self.device.info.layers) if layer.sampled_words]
        words = sampled_words(self.graph, np.array([seed], dtype=np.uint64))
        for layer, (name, drawn) in zip(layers, words.items(), strict=True):
            answered = self.device.sample(layer, seed, drawn.shape[1])
            self._count(name, drawn[0], answered, (0, seed), "word of drawn weights")

    def _count(
        self,
        layer: str,
        expected: npt.NDArray[Any],
        answered: npt.NDArray[Any],
        where: tuple[int, int],
        what: str,
    ) -> None:
        unequal = np.flatnonzero(expected != answered)
        self.compared += expected.size
        self.differing += unequal.size
        if unequal.size and self.first is None:
            at = int(unequal[0])
            left, right = int(expected[at]), int(answered[at])
            text = f"{what} {at} is {right:,} on the board, {left:,} in the reference"
            index, seed = where
            self.first = Parting(index, seed, layer, layer, at, 0, 0, left, right, text)

    def stage(self, *, twin_agrees: bool) -> Stage:
        """The whole, as one stage."""
        note = ""
        if self.differing and twin_agrees:
            note = (
                "layers cannot be read from a board, but the same C gives the right values on "
                "this machine: build and flash the project again, and try --emulate"
            )
        elif self.differing:
            note = "the C differs on this machine too: see the native twin's first difference"
        return Stage(
            "integer graph",
            self.label,
            self.compared,
            self.differing,
            self.differing,
            self.first,
            self.first,
            note,
        )
