"""Every supported operator against ONNX's reference implementation."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.errors import UnsupportedModelError, UsageError
from bnnmcu.frontend.qonnx import read_qonnx
from bnnmcu.network import Network, Sign
from bnnmcu.network.execute import run
from tests.support.onnx_models import QONNX, Model, quant_node, reference

RNG = np.random.default_rng(5)
MEAN, STD = 0.4, 0.3


def _w(*shape: int) -> Any:
    return RNG.normal(0, 1, shape)


def _xnor_weights(m: Model, x: str) -> str:
    """sign(w) * mean |w|, written out: folded without the network noticing."""
    w = m.constant(_w(4, 2, 3, 3))
    mean = m("ReduceMean", m("Abs", w), [1, 2, 3], keepdims=1)
    sign = m("Where", m("GreaterOrEqual", w, np.float32(0)), np.float32(1), np.float32(-1))
    return m("Conv", x, m("Mul", sign, mean))


def _detach(m: Model, x: str) -> str:
    """What (sign(x) - clip(x)).detach() + clip(x) exports to."""
    clip = m("Clip", x, np.float32(-1), np.float32(1))
    return m("Add", m("Sub", m("Sign", m("Add", x, np.float32(0.013))), clip), clip)


def _sign_zero(m: Model, x: str) -> str:
    relu = m("Relu", x)
    return m("Where", m("Equal", relu, np.float32(0)), np.float32(-1), m("Sign", relu))


def _dynamic_reshape(m: Model, x: str) -> str:
    """x.view(x.size(0), -1), as torch writes it without knowing the batch."""
    size = m("Unsqueeze", m("Gather", m("Shape", x), np.int64(0)), [0])
    return m("Reshape", x, m("Concat", size, [-1], axis=0))


def _padded(m: Model, x: str) -> str:
    """F.pad as torch's older exporter writes it."""
    zeros = m("ConstantOfShape", [4], value=_int_tensor(0))
    pairs = m("Reshape", m("Concat", [1, 2, 0, 1], zeros, axis=0), [-1, 2])
    back = m("Slice", pairs, [-1], [-(2**63) + 1], [0], [-1])
    pads = m("Cast", m("Reshape", m("Transpose", back, perm=[1, 0]), [-1]), to=7)
    return m("Pad", x, pads, np.float32(-1.5))


def _int_tensor(value: int) -> Any:
    from onnx import helper

    return helper.make_tensor("value", 7, [1], [value])


# From the value "x" (1, 2, 6, 6) to another one.
OPERATORS: dict[str, Callable[[Model], str]] = {
    "conv": lambda m: m("Conv", "x", _w(4, 2, 3, 2), _w(4)),
    "conv, all attributes": lambda m: m(
        "Conv", "x", _w(4, 1, 2, 3), group=2, strides=[2, 1], pads=[0, 1, 2, 3], dilations=[2, 1],
        kernel_shape=[2, 3],
    ),
    "conv, same upper": lambda m: m("Conv", "x", _w(3, 2, 4, 3), auto_pad="SAME_UPPER"),
    "conv, same lower, stride": lambda m: m(
        "Conv", "x", _w(3, 2, 4, 3), auto_pad="SAME_LOWER", strides=[2, 4]
    ),
    "conv, valid": lambda m: m("Conv", "x", _w(3, 2, 4, 3), auto_pad="VALID"),
    "conv, folded XNOR weights": lambda m: _xnor_weights(m, "x"),
    "batch norm": lambda m: m(
        "BatchNormalization", "x", _w(2), _w(2), _w(2), np.abs(_w(2)) + 0.1, epsilon=1e-3,
        momentum=0.5,
    ),
    "add per channel": lambda m: m("Add", "x", _w(2, 1, 1)),
    "add from the left": lambda m: m("Add", _w(1, 2, 1, 1), "x"),
    "constant minus": lambda m: m("Sub", np.float32(0.7), "x"),
    "minus constant": lambda m: m("Sub", "x", _w(2, 1, 1)),
    "times": lambda m: m("Mul", "x", _w(2, 1, 1)),
    "times, full size but equal": lambda m: m("Mul", "x", np.full((1, 2, 6, 6), 0.3)),
    "divided": lambda m: m("Div", "x", np.float32(-3.0)),
    "negated": lambda m: m("Neg", "x"),
    "residual": lambda m: m("Add", m("Relu", "x"), "x"),
    "difference": lambda m: m("Sub", m("Relu", "x"), m("Mul", "x", np.float32(0.2))),
    "relu": lambda m: m("Relu", "x"),
    "clip": lambda m: m("Clip", "x", np.float32(-0.3), np.float32(0.4)),
    "clip, upper only": lambda m: m("Clip", "x", "", np.float32(0.4)),
    "max and min": lambda m: m("Min", m("Max", "x", np.float32(-0.2)), np.float32(0.1)),
    "prelu": lambda m: m("PRelu", "x", _w(2, 1, 1)),
    "prelu, one slope": lambda m: m("PRelu", "x", _w(1)),
    "leaky relu": lambda m: m("LeakyRelu", "x", alpha=0.2),
    "hard sigmoid": lambda m: m("HardSigmoid", "x", alpha=0.4, beta=0.3),
    "sign": lambda m: m("Sign", "x"),
    "where >=": lambda m: m(
        "Where", m("GreaterOrEqual", "x", np.float32(0.1)), np.float32(1), np.float32(-1)
    ),
    "where <, other values": lambda m: m(
        "Where", m("Less", "x", _w(2, 1, 1)), np.float32(0.5), _w(2, 1, 1)
    ),
    "where not >": lambda m: m(
        "Where", m("Not", m("Greater", "x", np.float32(0))), np.float32(0), np.float32(3)
    ),
    "constant <= x": lambda m: m(
        "Where", m("LessOrEqual", np.float32(0.2), "x"), np.float32(1), np.float32(-1)
    ),
    "cast comparison": lambda m: m(
        "Sub", m("Mul", m("Cast", m("Greater", "x", np.float32(0)), to=1), np.float32(2)),
        np.float32(1),
    ),
    "sign with another zero": lambda m: _sign_zero(m, "x"),
    "detach trick": lambda m: _detach(m, "x"),
    "max pool": lambda m: m("MaxPool", "x", kernel_shape=[2, 3], strides=[2, 1]),
    "max pool, all attributes": lambda m: m(
        "MaxPool", "x", kernel_shape=[2, 3], strides=[2, 2], pads=[0, 1, 1, 1], dilations=[2, 1],
        ceil_mode=0, storage_order=0,
    ),
    "max pool, ceil": lambda m: m("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "max pool, same": lambda m: m("MaxPool", "x", kernel_shape=[3, 2], auto_pad="SAME_LOWER"),
    "average pool": lambda m: m("AveragePool", "x", kernel_shape=[3, 2], strides=[1, 2]),
    "average pool, padded": lambda m: m(
        "AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1],
        count_include_pad=1,
    ),
    "average pool, ceil without effect": lambda m: m(
        "AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1
    ),
    "global average": lambda m: m("GlobalAveragePool", "x"),
    "global maximum": lambda m: m("GlobalMaxPool", "x"),
    "mean": lambda m: m("ReduceMean", "x", [2, 3], keepdims=0),
    "mean of merged axes": lambda m: m(
        "ReduceMean", m("Reshape", "x", [1, 2, -1]), [-1], keepdims=0
    ),
    "sum over rows": lambda m: m("ReduceSum", "x", [2], keepdims=1),
    "maximum over columns": lambda m: m("ReduceMax", "x", [3], keepdims=1),
    "pad": lambda m: m("Pad", "x", [0, 0, 1, 0, 0, 0, 2, 3], np.float32(-1)),
    "pad, some axes": lambda m: m("Pad", "x", [1, 2], np.float32(0.5), [3]),
    "pad, written by torch": lambda m: _padded(m, "x"),
    "flatten": lambda m: m("Flatten", "x", axis=-3),
    "reshape": lambda m: m("Reshape", "x", [0, -1]),
    "reshape, batch unknown": lambda m: _dynamic_reshape(m, "x"),
    "squeeze and back": lambda m: m(
        "Unsqueeze", m("Squeeze", m("GlobalAveragePool", "x"), [3]), [-1]
    ),
    "transpose of ones": lambda m: m(
        "Transpose", m("GlobalAveragePool", "x"), perm=[0, 1, 3, 2]
    ),
    "identity, dropout, cast": lambda m: m("Cast", m("Dropout", m("Identity", "x")), to=11),
    "bipolar": lambda m: m("BipolarQuant", "x", np.float32(1), domain=QONNX),
    "bipolar, scale per channel": lambda m: m("BipolarQuant", "x", _w(1, 2, 1, 1), domain=QONNX),
    "bipolar at exactly zero": lambda m: m(
        "BipolarQuant", m("Clip", "x", "", np.float32(0)), np.float32(0.5), domain=QONNX
    ),
    "one signed bit": lambda m: quant_node(m, "x", 0.5, 1),
    "one signed bit, zero point": lambda m: quant_node(m, "x", -0.5, 1, zero=0.25),
    "one unsigned bit": lambda m: quant_node(m, "x", 0.6, 1, signed=0),
    "quantised weights": lambda m: m(
        "Conv", "x", quant_node(m, m.constant(_w(4, 2, 3, 3)), 0.2, 4, narrow=1)
    ),
    "ternary weights, a scale per filter": lambda m: m(
        "Conv", "x", quant_node(m, m.constant(_w(4, 2, 3, 3)), np.abs(_w(4, 1, 1, 1)), 2, narrow=1)
    ),
    "bipolar weights": lambda m: m(
        "Conv", "x",
        m("BipolarQuant", m.constant([[[[0.0, -0.0]], [[1e-9, -3.0]]]]), np.float32(0.1),
          domain=QONNX),
    ),
}  # fmt: skip


def _images(shape: tuple[int, int, int], count: int = 4) -> Any:
    channels, height, width = shape
    return np.random.default_rng(1).integers(0, 256, (count, height, width, channels), np.uint8)


def _compare(path: Path, network: Network, batch_shape: tuple[int, ...]) -> None:
    images = _images(network.input_shape)
    ours = run(network, images)
    for image, logits in zip(images, ours, strict=True):
        x = (image.transpose(2, 0, 1).astype(np.float64) / 255 - MEAN) / STD
        theirs = reference(path, x.reshape(batch_shape).astype(np.float32)).reshape(-1)
        assert np.ptp(theirs) > 0
        np.testing.assert_allclose(logits, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_means_what_onnx_says(name: str, tmp_path: Path) -> None:
    m = Model()
    out = OPERATORS[name](m)
    m("Flatten", out)
    # Flattened values are the logits: nothing is averaged away.
    path = m.save(tmp_path)
    network = read_qonnx(path, mean=MEAN, std=STD)
    _compare(path, network, (1, 2, 6, 6))


def test_a_signal(tmp_path: Path) -> None:
    m = Model((1, 2, 19))
    x = m("Conv", "x", _w(6, 2, 5), _w(6), pads=[2, 1], strides=[2])
    x = m("BipolarQuant", x, np.float32(0.3), domain=QONNX)
    x = m("Conv", x, _w(6, 1, 3), group=6, dilations=[2])
    x = m("MaxPool", x, kernel_shape=[2], strides=[2], ceil_mode=1)
    x = m("Pad", x, [0, 0, 1, 0, 0, 0], np.float32(1))
    x = m("AveragePool", x, kernel_shape=[2])
    x = m("ReduceMean", x, [2], keepdims=0)
    m("MatMul", x, _w(6, 4))
    path = m.save(tmp_path)
    network = read_qonnx(path, mean=MEAN, std=STD)
    assert network.input_shape == (2, 1, 19)
    _compare(path, network, (1, 2, 19))


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 20, 22, 25])
def test_operator_sets(opset: int, tmp_path: Path) -> None:
    """Attributes became inputs between versions; each is read as its version says."""
    m = Model(("N", 12), opset=opset)
    x = m("Gemm", "x", _w(12, 8), _w(1, 8), alpha=0.5, beta=2.0)
    if opset < 11:
        x = m("Clip", x, min=-0.5, max=0.8)
    else:
        x = m("Clip", x, np.float32(-0.5), np.float32(0.8))
    x = m("Unsqueeze", x, axes=[2, 3]) if opset < 13 else m("Unsqueeze", x, [2, 3])
    if opset < 11:
        x = m("Pad", x, pads=[0, 0, 0, 1, 0, 0, 0, 1], value=0.25)
    else:
        x = m("Pad", x, [0, 0, 0, 1, 0, 0, 0, 1], np.float32(0.25))
    if opset < 18:
        x = m("ReduceMean", x, axes=[2, 3], keepdims=1)
    else:
        x = m("ReduceMean", x, [2, 3], keepdims=1)
    x = m("Squeeze", x, axes=[2, 3]) if opset < 13 else m("Squeeze", x, [2, 3])
    m("MatMul", x, m("Transpose", m.constant(_w(3, 8)), perm=[1, 0]))
    path = m.save(tmp_path)
    network = read_qonnx(path, mean=MEAN, std=STD)
    assert network.input_shape == (12, 1, 1)
    _compare(path, network, (1, 12))


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_what_changes_no_label_is_left_out(op: str, tmp_path: Path) -> None:
    plain = Model((1, 6))
    weights = _w(6, 3)
    plain("MatMul", "x", weights)
    logits = run(read_qonnx(plain.save(tmp_path)), _images((6, 1, 1)))
    plain(op, plain.nodes[-1].output[0])
    assert np.array_equal(run(read_qonnx(plain.save(tmp_path)), _images((6, 1, 1))), logits)


def test_a_detached_sign_leaves_the_sign_alone(tmp_path: Path) -> None:
    m = Model((1, 6))
    m("MatMul", _detach(m, "x"), _w(6, 3))
    kinds = [type(op).__name__ for op in read_qonnx(m.save(tmp_path)).ops]
    assert kinds == ["Affine", "Sign", "Linear"]


def test_sign_at_zero(tmp_path: Path) -> None:
    for out, zero in (
        (lambda m: m("Sign", "x"), 0),
        (lambda m: m("BipolarQuant", "x", np.float32(1), domain=QONNX), 1),
        (lambda m: quant_node(m, "x", 1.0, 1), 1),
        (lambda m: m("Where", m("Greater", "x", np.float32(0)), np.float32(1), np.float32(-1)), -1),
    ):
        m = Model((1, 3))
        out(m)
        (sign,) = read_qonnx(m.save(tmp_path)).ops
        assert isinstance(sign, Sign)
        assert sign.zero == zero


def test_an_input_grid_of_pixels_is_no_change(tmp_path: Path) -> None:
    """Brevitas quantises inputs, too: harmless where every pixel lies on the grid."""
    m = Model((1, 6))
    m("MatMul", quant_node(m, "x", 1 / 255, 8, signed=0), _w(6, 3))
    assert [type(op).__name__ for op in read_qonnx(m.save(tmp_path)).ops] == ["Linear"]
    with pytest.raises(UnsupportedModelError, match="quantised to 8 bits"):
        read_qonnx(m.save(tmp_path), mean=0.5)


def test_pixels(tmp_path: Path) -> None:
    m = Model((1, 2, 3, 3))
    m("Flatten", m("Add", "x", np.float32(1)))
    network = read_qonnx(m.save(tmp_path), mean=[0.5, 0.25], std=(2.0, 0.5), name="net")
    assert network.name == "net"
    np.testing.assert_allclose(network.input_scale * 255, [0.5, 2.0])
    np.testing.assert_allclose(network.input_offset, [-0.25, -0.5])
    for mean, std in ((0.0, 0.0), ([1, 2, 3], 1.0), (math.nan, 1.0), ("red", 1.0)):
        with pytest.raises(UsageError):
            read_qonnx(m.save(tmp_path), mean=mean, std=std)  # type: ignore[arg-type]
    m.element = 2
    network = read_qonnx(m.save(tmp_path))
    assert (network.input_scale == 1).all()
    with pytest.raises(UsageError, match="uint8"):
        read_qonnx(m.save(tmp_path), mean=0.5)
