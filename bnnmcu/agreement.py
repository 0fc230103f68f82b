"""How far the integer network is from the float one it was made from, on a data set.

Both run on the same images: clean ones, and adversarial ones that were crafted
on the integer network.  Where weights are drawn, both sides get the same drawn
weights, those of device seeds, so that what is measured is quantisation and
not chance; that probabilities are rounded to k bits is not part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bnnmcu import reference
from bnnmcu.attack.config import AttackConfig, GradientConfig
from bnnmcu.attack.craft import craft, make_twin
from bnnmcu.attack.seeds import crafting_seed
from bnnmcu.data import Dataset
from bnnmcu.errors import UsageError
from bnnmcu.evaluate import draw_seeds
from bnnmcu.graph import BinaryConv, Graph, Node
from bnnmcu.network import Conv, Linear, execute
from bnnmcu.passes import Lowering, Tap

__all__ = ["Agreement", "Case", "LayerAgreement", "agreement"]

# Images compared at a time, which bounds the memory that all their values take.
_CHUNK = 16
# As in a campaign: part of what makes crafted images reproducible.
_CRAFT_CHUNK = 25

Floats = npt.NDArray[np.float64]
Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LayerAgreement:
    """One value that both networks have.

    Attributes:
        layer: the float network's name for it.
        node: the graph's.
        kind: ``signs`` or ``values``.
        compared: numbers compared.
        differing: of signs, the share that differ, 0 to 1; None for values.  A
            float sign of 0 always does, since no bit is 0.
        rms: of values, the root mean square difference over the standard
            deviation of the float ones; None for signs.
    """

    layer: str
    node: str
    kind: Literal["signs", "values"]
    compared: int
    differing: float | None
    rms: float | None


@dataclass(frozen=True)
class Case:
    """What came out for one kind of images.

    Attributes:
        attack: ``clean``, ``fgsm`` or ``pgd``.
        epsilon, levels: its budget, and that in pixel levels.
        answers: images times draws.
        same_label: share of answers in which both networks give one label.
        float_error, integer_error: shares of wrong labels; None without true ones.
        spread: the largest float logit minus the smallest, mean over answers.
        mean_change, largest_change: of a logit, in units of ``spread``.
        decided_by: the largest lead of a float label that the integer network
            does not share, in units of ``spread``; 0 if all are shared.
        layers: in the order of the network.
    """

    attack: str
    epsilon: float
    levels: int
    answers: int
    same_label: float
    float_error: float | None
    integer_error: float | None
    spread: float
    mean_change: float
    largest_change: float
    decided_by: float
    layers: tuple[LayerAgreement, ...]


@dataclass(frozen=True)
class Agreement:
    """The float network against the integer one.

    Attributes:
        draws: weights drawn for every image; 1 where nothing is drawn.
        cases: clean images first, then each attack's.
    """

    model: str
    data: str
    images: int
    draws: int
    seed: int
    cases: tuple[Case, ...]

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


@dataclass
class _Layer:
    """Sums over all that was compared of one tap."""

    tap: Tap
    compared: int = 0
    differing: int = 0
    squares: float = 0.0
    total: float = 0.0
    total_squares: float = 0.0

    def add(self, floats: Floats, integers: npt.NDArray[Any]) -> None:
        """Values (N, C, H, W), or flattened, and (N, H, W, C), or (N, C) of a dense layer."""
        count, channels = len(integers), integers.shape[-1]
        height, width = integers.shape[1:3] if integers.ndim == 4 else (1, 1)
        given = integers.reshape(count, height, width, channels).transpose(0, 3, 1, 2)
        given = given.astype(np.float64)
        # A flattened value lies in the order (C, H, W); dead channels are only in the float one.
        wanted = floats.reshape(count, -1, height, width)[:, self.tap.channels]
        self.compared += given.size
        if self.tap.scale is None or self.tap.offset is None:
            self.differing += int(np.count_nonzero(2.0 * given - 1.0 != wanted))
            return
        given = self.tap.scale.reshape(-1, 1, 1) * given + self.tap.offset.reshape(-1, 1, 1)
        self.squares += float(((given - wanted) ** 2).sum())
        self.total += float(wanted.sum())
        self.total_squares += float((wanted**2).sum())

    def result(self) -> LayerAgreement:
        names = (self.tap.op, self.tap.node)
        if self.tap.scale is None:
            share = self.differing / self.compared
            return LayerAgreement(*names, "signs", self.compared, share, None)
        mean = self.total / self.compared
        variance = max(self.total_squares / self.compared - mean**2, 0.0)
        # A layer that always gives the same has no spread to measure with.
        rms = float(np.sqrt(self.squares / self.compared / (variance or 1.0)))
        return LayerAgreement(*names, "values", self.compared, None, rms)


@dataclass
class _Answers:
    """Logits of one kind of images, and what was seen in the layers."""

    layers: list[_Layer]
    labelled: bool
    labels: list[npt.NDArray[np.int64]] = field(default_factory=list)
    floats: list[Floats] = field(default_factory=list)
    integers: list[Floats] = field(default_factory=list)

    def case(self, attack: AttackConfig | None) -> Case:
        labels = np.concatenate(self.labels)
        floats, integers = np.concatenate(self.floats), np.concatenate(self.integers)
        label, other = floats.argmax(axis=1), integers.argmax(axis=1)
        spread = float(np.ptp(floats, axis=1).mean())
        # One class, or equal logits for every image: nothing to measure with.
        unit = spread or 1.0
        change = np.abs(floats - integers)
        rows = np.arange(len(floats))
        lead = (floats[rows, label] - floats[rows, other])[label != other]
        return Case(
            attack=attack.kind if attack else "clean",
            epsilon=attack.epsilon if isinstance(attack, GradientConfig) else 0.0,
            levels=attack.levels if attack else 0,
            answers=len(floats),
            same_label=float((label == other).mean()),
            float_error=float((label != labels).mean()) if self.labelled else None,
            integer_error=float((other != labels).mean()) if self.labelled else None,
            spread=spread,
            mean_change=float(change.mean()) / unit,
            largest_change=float(change.max()) / unit,
            decided_by=float(lead.max(initial=0.0)) / unit,
            layers=tuple(layer.result() for layer in self.layers),
        )


def _drawn(lowering: Lowering, seed: np.uint64) -> tuple[Graph, dict[str, Floats]]:
    """Both networks with the weights that a seed draws: a graph, and -1 / +1 weights by name."""
    graph, network = lowering.graph, lowering.network
    words = reference.sampled_words(graph, np.array([seed], dtype=np.uint64))
    fixed: dict[str, Node] = {}
    signs: list[Floats] = []
    for node in graph.stochastic:
        bits = reference.sampled_weights(node, words[node.name])[0]
        fixed[node.name] = BinaryConv(
            node.name, node.source, bits, node.stride, node.padding, node.dilation, node.groups
        )
        signs.append(2.0 * bits.transpose(0, 3, 1, 2) - 1.0)
    # Layers that nothing reads are not in the graph; what they draw changes nothing.
    kept = next(s.network for s in reversed(lowering.snapshots) if s.network is not None)
    names = [op.name for op in kept.ops if isinstance(op, Conv | Linear) and op.drawn]
    by_name = dict(zip(names, signs, strict=True))
    weights = {
        op.name: by_name[op.name].reshape(op.weights.shape)
        if op.name in by_name
        else np.ones(op.weights.shape)
        for op in network.ops
        if isinstance(op, Conv | Linear) and op.drawn
    }
    nodes = tuple(fixed.get(node.name, node) for node in graph.nodes)
    return replace(graph, nodes=nodes), weights


def _compare(
    lowering: Lowering,
    fixed: Graph,
    weights: Mapping[str, Floats],
    images: Images,
    labels: npt.NDArray[np.int64],
    answers: _Answers,
) -> None:
    """Run a few images through both networks."""
    nodes = {layer.tap.node for layer in answers.layers}
    wanted = {layer.tap.op for layer in answers.layers}
    values: dict[str, npt.NDArray[Any]] = {}
    floats: dict[str, Floats] = {}

    def keep_value(name: str, value: npt.NDArray[Any]) -> None:
        if name in nodes:
            values[name] = value

    def keep_float(name: str, value: Floats) -> None:
        if name in wanted:
            floats[name] = value if name not in floats else np.concatenate([floats[name], value])

    integers = reference.run(fixed, images, on_value=keep_value)[:, 0]
    logits = execute.run(lowering.network, images, drawn=weights, on_value=keep_float)
    for layer in answers.layers:
        layer.add(floats[layer.tap.op], values[layer.tap.node])
    answers.labels.append(labels)
    answers.floats.append(logits)
    answers.integers.append(np.asarray(integers * fixed.logit_scale, dtype=np.float64))


def agreement(
    lowering: Lowering,
    data: Dataset,
    *,
    attacks: Sequence[AttackConfig] = (),
    draws: int = 5,
    seed: int = 1,
    progress: Callable[[str, int, int], object] | None = None,
) -> Agreement:
    """Compare both networks on clean and on adversarial images.

    Args:
        lowering: the compiled network.
        attacks: crafted on the integer network, with ``draws`` never seen there.
        draws: of weights, each for all images; 1 is used where nothing is drawn.
        seed: decides all that is random.
        progress: is told what is being done, how much of it, and of how much.

    Raises:
        DataError: the images have another shape than the network takes.
        UsageError: an attack is given, and the images have no labels to attack.
        MissingDependencyError: an attack is given and torch is missing.
        UnsupportedModelError: an attack is given and the graph gives no gradients.
    """
    graph, network = lowering.graph, lowering.network
    data.check_suits(graph.name, graph.input_shape, graph.classes)
    if not graph.stochastic:
        draws = 1
    if attacks and not data.labelled:
        raise UsageError(
            f"{data.name} has no labels to attack", hint="give other data, or leave out --attack"
        )
    report = progress or (lambda *_: None)
    # Passes may split operations: those exist in the graph alone.
    known = {op.name for op in network.ops}
    taps = [tap for tap in lowering.taps if tap.op in known]
    drawn = [_drawn(lowering, value) for value in draw_seeds(seed, 0, draws, 1)[:, 0]]
    cases = []
    for attack in (None, *attacks):
        name = f"{attack.kind} {attack.levels}/255" if attack else "clean"
        images = data.images if attack is None else _crafted(graph, data, attack, seed, report)
        answers = _Answers([_Layer(tap) for tap in taps], data.labelled)
        total, done = draws * len(data), 0
        for fixed, weights in drawn:
            for start in range(0, len(data), _CHUNK):
                part = slice(start, start + _CHUNK)
                _compare(lowering, fixed, weights, images[part], data.labels[part], answers)
                done += len(images[part])
                report(f"comparing {name}", done, total)
        cases.append(answers.case(attack))
    return Agreement(graph.name, data.name, len(data), draws, seed, tuple(cases))


def _crafted(
    graph: Graph,
    data: Dataset,
    attack: AttackConfig,
    seed: int,
    report: Callable[[str, int, int], object],
) -> Images:
    twin = make_twin(graph)
    made = []
    for chunk, start in enumerate(range(0, len(data), _CRAFT_CHUNK)):
        part = slice(start, start + _CRAFT_CHUNK)
        own = crafting_seed(seed, attack.kind, attack.levels, chunk)
        made.append(craft(twin, attack, data.images[part], data.labels[part], own).images)
        done = min(start + _CRAFT_CHUNK, len(data))
        report(f"crafting {attack.kind} {attack.levels}/255", done, len(data))
    return np.concatenate(made)
