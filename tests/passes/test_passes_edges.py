"""Odd networks: accepted, near the float network, and without needless nodes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bnnmcu import reference
from bnnmcu.errors import UnsupportedModelError, UsageError
from bnnmcu.graph import infer
from bnnmcu.network import (
    Add,
    Affine,
    AvgPool,
    Clamp,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Network,
    Op,
    Pad,
    PRelu,
    Sign,
    execute,
)
from bnnmcu.network.ops import Floats
from bnnmcu.passes import Lowering, Quantization, lower

_INF = float("inf")
_AROUND = (1, 1, 1, 1)
_ONES, _ZEROS = np.ones(4), np.zeros(4)


def _rng(*key: int | str) -> np.random.Generator:
    return np.random.default_rng([len(str(k)) + sum(map(ord, str(k))) for k in key])


def _net(
    *ops: Op, shape: tuple[int, int, int] = (1, 8, 8), mean: float = 0.0, std: float = 1.0
) -> Network:
    channels = shape[0]
    return Network(
        "net", shape, ops, np.full(channels, 1 / 255 / std), np.full(channels, -mean / std)
    )


def _real(name: str, source: str, outputs: int, inputs: int, kernel: int = 3, **more: object) -> Op:
    weights = np.rint(_rng(name).normal(0, 19, (outputs, inputs, kernel, kernel))) / 64
    # Multiples of the smallest: exact as integers, so that only what follows can err.
    weights[:, 0, 0, 0] = 1 / 64
    return Conv(name, source, weights, **more)  # type: ignore[arg-type]


def _signs(name: str, *shape: int) -> Floats:
    return np.where(_rng(name, *shape).random(shape) < 0.5, 1.0, -1.0)


def _binary(
    name: str, source: str, outputs: int, inputs: int, kernel: int = 3, **more: object
) -> Op:
    return Conv(name, source, _signs(name, outputs, inputs, kernel, kernel), **more)  # type: ignore[arg-type]


def _norm(name: str, source: str, channels: int) -> Op:
    rng = _rng(name)
    return Affine(name, source, rng.uniform(0.5, 2, channels), rng.normal(0, 0.5, channels))


def _fc(name: str, source: str, outputs: int, inputs: int) -> Op:
    return Linear(name, source, _rng(name, inputs).normal(0, 0.3, (outputs, inputs)))


def _end(source: str, features: int) -> tuple[Op, ...]:
    return Flatten("flatten", source), _fc("fc", "flatten", 3, features)


def _first() -> Op:
    return _real("c", "input", 4, 1)


def _signed() -> tuple[Op, ...]:
    return _first(), Sign("s", "c")


def _wide(name: str, source: str) -> Op:
    return Affine(name, source, np.full(4, 300.0), _ZEROS)


_LONG = "x" * 199
_SCALED = _signs("d", 4, 4, 3, 3) * np.reshape([1, 0, 2, 1], (4, 1, 1, 1))
Case = tuple[Callable[[], Network], str]
_CASES: dict[str, Case] = {
    # What is cut off by a clamp may be far larger than what it leaves.
    "hardtanh of a wide norm": (
        lambda: _net(_first(), _wide("n", "c"), Clamp("h", "n", -1.0, 1.0),
                     AvgPool("a", "h", (2, 2), (2, 2)), *_end("a", 36)),
        "IntegerConv Affine Clamp SumPool Dense",
    ),
    "hardtanh of a wide norm in a sum": (
        lambda: _net(_first(), _wide("n", "c"), Clamp("h", "n", -1.0, 1.0),
                     Add("a", "h", other="c"), *_end("a", 144)),
        "IntegerConv Affine Clamp Affine Affine Add Dense",
    ),
    "relu of a norm that is mostly negative": (
        lambda: _net(_first(), Affine("n", "c", np.full(4, 900.0), np.full(4, -1000.0)),
                     Clamp("r", "n", 0.0, _INF), AvgPool("a", "r", (2, 2), (2, 2)),
                     *_end("a", 36)),
        "IntegerConv Affine Relu SumPool Dense",
    ),
    # Sums of many are made to fit.
    "global average of sums": (
        lambda: _net(_real("c", "input", 4, 3, 5), AvgPool("a", "c", (120, 120), (120, 120)),
                     *_end("a", 4), shape=(3, 124, 124)),
        "IntegerConv Affine SumPool Dense",
    ),
    "global average of a stream": (
        lambda: _net(*_signed(), _binary("d", "s", 4, 4, padding=_AROUND), _norm("n", "d", 4),
                     Clamp("r", "n", 0.0, _INF), AvgPool("a", "r", (30, 30), (30, 30)),
                     *_end("a", 4), shape=(1, 32, 32)),
        "IntegerConv Threshold BinaryConv Affine Relu Affine SumPool Dense",
    ),
    "an image channel that is constant beside padding": (
        lambda: _net(Affine("n", "input", np.array([2.0, 1.0, 0.0]), np.array([0, 0, 0.3])),
                     _real("c", "n", 4, 3, padding=_AROUND),
                     AvgPool("a", "c", (8, 8), (8, 8)), *_end("a", 4), shape=(3, 8, 8)),
        "Affine Affine IntegerConv Affine SumPool Dense",
    ),
    "0 and 1 beside padding": (
        lambda: _net(*_signed(), Affine("step", "s", _ONES / 2, _ONES / 2),
                     _binary("d", "step", 4, 4, padding=_AROUND), *_end("d", 144)),
        "IntegerConv Threshold Affine IntegerConv Dense",
    ),
    # Ends of networks.
    "ends in a flattened average": (
        lambda: _net(*_signed(), _binary("d", "s", 5, 4), AvgPool("a", "d", (4, 4), (4, 4)),
                     Flatten("f", "a")),
        "IntegerConv Threshold BinaryConv SumPool",
    ),
    "ends in a flattened convolution": (
        lambda: _net(*_signed(), _binary("d", "s", 5, 4, 6), Flatten("f", "d")),
        "IntegerConv Threshold BinaryConv",
    ),
    "ends in padding that adds nothing": (
        lambda: _net(*_signed(), _binary("d", "s", 5, 4, 6), Pad("p", "d", (0, 0, 0, 0))),
        "IntegerConv Threshold BinaryConv",
    ),
    # Names that passes make up.
    "long names": (
        lambda: _net(_first(), Flatten(_LONG + "f", "c"), Clamp(_LONG + "k", _LONG + "f", -9, 9),
                     Sign(_LONG + "s", _LONG + "k"), _fc("fc", _LONG + "s", 3, 144)),
        "IntegerConv Threshold Dense",
    ),
    "long names of padding": (
        lambda: _net(_first(), Pad("p", "c", _AROUND), Clamp(_LONG, "p", 0.0, _INF),
                     AvgPool("a", _LONG, (8, 8), (8, 8)), *_end("a", 4)),
        "IntegerConv Relu SumPool Dense",
    ),
    "names as passes make them up": (
        lambda: _net(_first(), Flatten("f", "c"), Clamp("k", "f", -9, 9), Flatten("k:flat", "k"),
                     Sign("k:moved", "k:flat"), _fc("fc", "k:moved", 3, 144)),
        "IntegerConv Threshold Dense",
    ),
    "two norms for each feature": (
        lambda: _net(*_signed(), Flatten("f", "s"), _norm("n", "f", 144), _norm("m", "n", 144),
                     _fc("fc", "m", 3, 144)),
        "IntegerConv Threshold Dense",
    ),
    "padding that nothing reads": (
        lambda: _net(*_signed(), Pad("p", "c", _AROUND, 1.0), *_end("s", 144)),
        "IntegerConv Threshold Dense",
    ),
    "padding with ones that adds nothing": (
        lambda: _net(*_signed(), Pad("p", "s", (0, 0, 0, 0), 1.0), *_end("p", 144)),
        "IntegerConv Threshold Dense",
    ),
    # Bits stay bits.
    "signs behind a relu": (
        lambda: _net(*_signed(), Clamp("r", "s", 0.0, _INF), _binary("d", "r", 4, 4),
                     Sign("t", "d"), *_end("t", 64)),
        "IntegerConv Threshold BinaryConv Threshold Dense",
    ),
    "signs behind a hardtanh": (
        lambda: _net(*_signed(), Clamp("r", "s", -1.0, 1.0),
                     _binary("d", "r", 4, 4, padding=_AROUND), Sign("t", "d"), *_end("t", 144)),
        "IntegerConv Threshold BinaryConv Threshold Dense",
    ),
    "signs behind a prelu that turns round": (
        lambda: _net(*_signed(), PRelu("r", "s", np.full(4, -0.25)),
                     MaxPool("m", "r", (2, 2), (2, 2)), *_end("m", 36)),
        "IntegerConv Threshold MaxPool Dense",
    ),
    "an average of one": (
        lambda: _net(*_signed(), AvgPool("a", "s", (1, 1), (1, 1)), _binary("d", "a", 4, 4),
                     Sign("t", "d"), *_end("t", 64)),
        "IntegerConv Threshold BinaryConv Threshold Dense",
    ),
    "a clamp without ends": (
        lambda: _net(*_signed(), Clamp("i", "s", -_INF, _INF), _binary("d", "i", 4, 4),
                     Sign("t", "d"), *_end("t", 64)),
        "IntegerConv Threshold BinaryConv Threshold Dense",
    ),
    "a binary filter of zeros": (
        lambda: _net(*_signed(),
                     Conv("d", "s", _SCALED),
                     _norm("n", "d", 4), AvgPool("a", "n", (4, 4), (4, 4)), *_end("a", 4)),
        "IntegerConv Threshold BinaryConv SumPool Dense",
    ),
    # Sums without needless rounding.
    "a value added to itself": (
        lambda: _net(_first(), _norm("n", "c", 4), Add("a", "n", other="n"), Sign("s", "a"),
                     *_end("s", 144)),
        "IntegerConv Affine Add Threshold Dense",
    ),
    "signs added": (
        lambda: _net(*_signed(), Add("a", "s", other="s"), *_end("a", 144)),
        "IntegerConv Threshold Affine Add Dense",
    ),
    "sums of signs added": (
        lambda: _net(*_signed(), _binary("d", "s", 4, 4), _binary("e", "s", 4, 4),
                     Add("a", "d", other="e"), Sign("t", "a"), *_end("t", 64)),
        "IntegerConv Threshold BinaryConv BinaryConv Add Threshold Dense",
    ),
    "a stream that is read twice": (
        lambda: _net(_first(), _norm("n", "c", 4), Clamp("r", "n", 0.0, _INF),
                     AvgPool("a", "r", (6, 6), (6, 6)),
                     AvgPool("b", "r", (6, 6), (6, 6), divisor=9),
                     Add("z", "a", other="b"), *_end("z", 4)),
        "IntegerConv Affine Relu SumPool SumPool Affine Add Dense",
    ),
}  # fmt: skip


def _worst(lowering: Lowering, network: Network) -> float:
    """The largest error of a value before the first bit that fell on the other side."""
    channels, height, width = network.input_shape
    images = _rng("images").integers(0, 256, (5, height, width, channels), dtype=np.uint8)
    images[0] = 255
    floats: dict[str, Floats] = {"input": execute.to_float(network, images)}
    execute.run(network, images, on_value=lambda k, v: floats.__setitem__(k, v))
    integers: dict[str, Floats] = {"input": images.astype(np.float64)}
    specs, worst = infer(lowering.graph), 0.0

    def keep(name: str, value: Floats) -> None:
        integers[name] = 2.0 * value - 1 if specs[name].kind == "bit" else value

    reference.run(lowering.graph, images, on_value=keep)
    order = {op.name: i for i, op in enumerate(network.ops)}
    for tap in sorted(lowering.taps, key=lambda tap: order.get(tap.op, -1)):
        if tap.node == "input":
            continue
        expected = tap.arranged(floats[tap.op], specs[tap.node].shape)
        got = integers[tap.node].reshape(expected.shape)
        if tap.scale is None:
            if not np.array_equal(got, expected):
                break
        else:
            error = np.abs(tap.scale * got + tap.offset - expected).max()
            worst = max(worst, float(error / max(np.abs(expected).max(), 1e-9)))
    return worst


@pytest.mark.parametrize("case", _CASES)
def test_odd_networks(case: str) -> None:
    make, nodes = _CASES[case]
    network = make()
    lowering = lower(network)
    assert " ".join(type(node).__name__ for node in lowering.graph.nodes) == nodes
    known = {op.name for op in network.ops}
    assert {tap.op for tap in lowering.taps} <= known
    assert lowering.taps[-1].op == network.ops[-1].name
    assert _worst(lowering, network) < 2e-3


def test_channels_that_a_large_one_leaves_few_bits_are_announced() -> None:
    def notes(largest: float) -> list[str]:
        scale = np.array([1.0, 1.0, 1.0, largest])
        network = _net(_first(), Affine("n", "c", scale, _ZEROS), Clamp("r", "n", 0.0, _INF),
                       AvgPool("a", "r", (6, 6), (6, 6)), *_end("a", 4))  # fmt: skip
        return [n.text for n in lower(network).notes if "fixed point" in n.text]

    assert notes(100.0) == []
    assert len(notes(1e5)) == 1
    assert notes(1e5)[0].startswith("3 of 4 channels")


def test_weights_keep_their_bits_beside_an_input_of_another_size() -> None:
    """A channel that is constant may have a factor of hundreds: batch norm divides by nothing."""
    scale, offset = np.array([0.05, 0.03, 0.1, 3e3]), np.array([0, 0, 0, -36 * 3e3])
    weights = _rng("e").normal(0, 0.3, (8, 4, 1, 1))
    dead = np.concatenate([_signs("d", 3, 4, 3, 3), np.zeros((1, 4, 3, 3))])
    network = _net(
        *_signed(), Conv("d", "s", dead, bias=np.array([0, 0, 0, 36.0])),
        Affine("n", "d", scale, offset), Conv("e", "n", weights), Sign("t", "e"), *_end("t", 128),
    )  # fmt: skip
    lowering = lower(network)
    assert _worst(lowering, network) < 2e-3


def test_an_odd_number_of_signs_is_never_zero() -> None:
    def noted(channels: int) -> bool:
        network = _net(
            _real("c", "input", channels, 1), Sign("s", "c"), _binary("d", "s", 4, channels),
            Sign("t", "d", 0), *_end("t", 64),
        )  # fmt: skip
        return any(n.where == "t" and "torch.sign(0)" in n.text for n in lower(network).notes)

    assert not noted(3)
    assert noted(4)


def test_parameters_that_leave_float64_are_refused_by_name() -> None:
    huge = np.full(4, 1e200)
    for between in ((), (Clamp("r", "n", 0.0, _INF),)):
        last = between[-1].name if between else "n"
        network = _net(_first(), Affine("n", "c", huge, _ZEROS), *between,
                       Affine("m", last, huge, _ZEROS), AvgPool("a", "m", (6, 6), (6, 6)),
                       *_end("a", 4))  # fmt: skip
        with pytest.raises(UnsupportedModelError) as caught:
            lower(network)
        assert caught.value.where == "m"


@pytest.mark.parametrize("size", [1e200, 1e-290, 1e-310])
def test_weights_of_any_size(size: float) -> None:
    fc = Linear("fc", "f", _rng("fc").normal(0, 1, (3, 144)) * size)
    lowering = lower(_net(*_signed(), Flatten("f", "s"), fc))
    assert np.isfinite([lowering.graph.logit_scale, lowering.errors[-1].rms]).all()


def test_calibration_of_what_cannot_be_calibrated() -> None:
    options = Quantization(first_layer="calibrated", first_layer_bits=8)
    images = _rng("images").integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    pooled = _net(MaxPool("m", "input", (2, 2), (1, 1)), _real("c", "m", 4, 1), Sign("s", "c"),
                  *_end("s", 100))  # fmt: skip
    notes = [n for n in lower(pooled, options, calibration=images).notes if n.where == "c"]
    assert "not calibrated" in notes[0].text
    for wrong in (images[:, :7], images.astype(np.float64), images[0]):
        with pytest.raises(UsageError, match="calibration images are"):
            lower(pooled, options, calibration=wrong)
    with pytest.raises(UsageError, match="images are a list"):
        lower(pooled, options, calibration=[1, 2])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the options are a dict"):
        lower(pooled, {"planes": 4})  # type: ignore[arg-type]


def test_calibration_sees_the_pixels_that_stand_for_zero() -> None:
    """With black images and a mean of one half, only the padding tells filters apart."""
    options = Quantization(first_layer="calibrated", first_layer_bits=8)
    images = np.zeros((2, 8, 8, 1), dtype=np.uint8)
    conv = Conv("c", "input", _rng("c").normal(size=(4, 1, 3, 3)), padding=_AROUND)
    network = _net(conv, Sign("s", "c"), *_end("s", 256), mean=0.5)
    calibrated = lower(network, options, calibration=images).graph.nodes[0]
    plain = lower(network, Quantization(first_layer_bits=8)).graph.nodes[0]
    assert not np.array_equal(calibrated.weights, plain.weights)  # type: ignore[attr-defined]


@pytest.mark.parametrize("scale", [0.0, 1e-320, 1e-290, 1e-30, 1e30, 1e290])
@pytest.mark.parametrize("weights", [0.0, 1e-10, 1.0])
def test_streams_of_any_size(scale: float, weights: float) -> None:
    """Values that are nothing, and values that are large: close, or refused by name."""
    conv = Conv("c", "input", np.full((4, 1, 3, 3), weights))
    network = _net(conv, Affine("n", "c", np.full(4, scale), _ONES * min(scale, 1.0)),
                   Clamp("r", "n", 0.0, _INF), AvgPool("a", "r", (6, 6), (6, 6)),
                   *_end("a", 4))  # fmt: skip
    assert _worst(lower(network), network) < 2e-3
