"""What is refused: the node, what was seen, and a way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.errors import BnnmcuError, UnsupportedModelError
from bnnmcu.frontend.qonnx import read_qonnx
from tests.support.onnx_models import QONNX, Model, quant_node

RNG = np.random.default_rng(6)


def _w(*shape: int) -> Any:
    return RNG.normal(0, 1, shape)


def _attention(m: Model) -> str:
    return m("Mul", "x", m("Sigmoid", m("GlobalAveragePool", "x")))


# What it builds, the operator named in `where`, what was seen, and what to do next.
REFUSALS: dict[str, tuple[Callable[[Model], Any], str, str, str]] = {
    "tanh": (lambda m: m("Tanh", "x"), "Tanh", "operator Tanh is not supported", "use a sign"),
    "gelu": (lambda m: m("Gelu", "x"), "Gelu", "not supported", "nn.ReLU"),
    "attention": (_attention, "Sigmoid", "operator Sigmoid", "use a sign"),
    "gate": (lambda m: m("Mul", "x", m("Relu", "x")), "Mul", "product of two activations",
             "without the input scale K"),
    "soft in the middle": (lambda m: m("Relu", m("Softmax", "x", axis=1)), "Softmax",
                           "operator Softmax", "at the end only"),
    "concat": (lambda m: m("Concat", "x", "x", axis=1), "Concat", "operator Concat",
               "add branches"),
    "argmax": (lambda m: m("ArgMax", "x"), "ArgMax", "operator ArgMax", "return the logits"),
    "layer norm": (lambda m: m("LayerNormalization", "x", _w(6)), "LayerNormalization",
                   "operator LayerNormalization", "nn.BatchNorm2d"),
    "batch norm in training": (
        lambda m: m("BatchNormalization", "x", _w(2), _w(2), _w(2), _w(2) ** 2, outputs=3,
                    training_mode=1),
        "BatchNormalization", "training mode", "module.eval()"),
    "4-bit activations": (lambda m: quant_node(m, "x", 0.1, 4), "Quant", "quantised to 4 bits",
                          "leave the input unquantised"),
    "8-bit hidden": (lambda m: quant_node(m, m("Relu", "x"), 0.1, 8), "Quant",
                     "quantised to 8 bits", "SignedBinaryActPerTensorConst"),
    "trunc": (lambda m: m("Trunc", "x", _w(1), domain=QONNX), "Trunc", "operator Trunc",
              "nn.AvgPool2d"),
    "multi-threshold": (lambda m: m("MultiThreshold", "x", _w(2, 3), domain=QONNX),
                        "MultiThreshold", "operator MultiThreshold", "before FINN"),
    "other domain": (lambda m: m("Fancy", "x", domain="com.example"), "Fancy",
                     "operator set 'com.example'", "export_qonnx"),
    "average without padding": (
        lambda m: m("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), "AveragePool",
        "leaves padding out of the count", "count_include_pad=True"),
    "average, ceil": (
        lambda m: m("AveragePool", "x", kernel_shape=[4, 4], strides=[3, 3], ceil_mode=1),
        "AveragePool", "ceil_mode", "ceil_mode=False"),
    "reflect": (lambda m: m("Pad", "x", [0, 0, 1, 1, 0, 0, 1, 1], mode="reflect"), "Pad",
                "padding mode 'reflect'", "padding_mode='zeros'"),
    "crop": (lambda m: m("Pad", "x", [0, 0, -1, 0, 0, 0, 0, 0]), "Pad", "negative", "stride"),
    "weights from the image": (lambda m: m("Conv", "x", m("Relu", "x")), "Conv",
                               "the weight depends on the input image", "a parameter"),
    "a map of constants": (lambda m: m("Add", "x", _w(6, 6)), "Add", "differs from place to place",
                           "one number per channel"),
    "grows": (lambda m: m("Add", m("GlobalAveragePool", "x"), _w(1, 2, 3, 3)), "Add",
              "does not fit a value", "one number"),
    "two shapes": (lambda m: m("Add", "x", m("GlobalAveragePool", "x")), "Add",
                   "combines values of shape", "1x1 convolution"),
    "mean over channels": (lambda m: m("ReduceMean", "x", [1]), "ReduceMean", "the channels",
                           "x.mean((2, 3))"),
    "shuffle": (lambda m: m("Reshape", "x", [1, 4, 3, 6]), "Reshape", "arranges [2, 6, 6]",
                "flatten once"),
    "into the batch": (lambda m: m("Reshape", "x", [2, 1, 6, 6]), "Reshape",
                       "no longer the batch", "keep the batch"),
    "squeeze everything": (lambda m: m("Squeeze", m("GlobalAveragePool", "x")), "Squeeze",
                           "the batch as well", "x.squeeze(2)"),
    "channels last": (lambda m: m("Transpose", "x", perm=[0, 2, 3, 1]), "Transpose", "moves axes",
                      "(N, channels, height, width)"),
    "dense on an image": (lambda m: m("MatMul", "x", _w(6, 3)), "MatMul", "a dense layer on",
                          "flatten before it"),
    "choice": (lambda m: m("Where", m("Greater", "x", np.float32(0)), "x", np.float32(0)), "Where",
               "a choice between activations", "PReLU"),
    "comparison": (lambda m: m("Greater", "x", m("Neg", "x")), "Greater",
                   "comparison of two activations", "with a constant"),
    "integers": (lambda m: m("Cast", "x", to=7), "Cast", "which rounds them", "in float"),
    "clip per channel": (lambda m: m("Max", "x", _w(2, 1, 1)), "Max", "different values",
                         "one number"),
    "second output": (
        lambda m: m("Relu", (m("MaxPool", "x", kernel_shape=[2, 2], outputs=2), "v0_1")[1]),
        "Relu", "a second output", "without indices"),
    "unknown attribute": (lambda m: m("Relu", "x", colour=3), "Relu", "attribute colour",
                          "opset_version=20"),
    "rounding": (
        lambda m: m("Conv", "x", quant_node(m, m.constant(_w(1, 2, 1, 1)), 1.0, 4,
                                            rounding_mode="STOCHASTIC")),
        "Quant", "rounding mode 'STOCHASTIC'", "ROUND"),
    "unfoldable": (lambda m: m("Conv", "x", m("Einsum", m.constant(_w(4, 2, 3, 3)),
                                              equation="abcd->abcd")),
                   "Einsum", "Einsum of constants", "do_constant_folding"),
    "huge": (lambda m: m("Pad", "x", [0, 0, 0, 0, 0, 0, 60000, 60000]), "Pad", "values",
             "smaller image"),
    "constant out": (lambda m: m("Relu", _w(1, 3)), "", "its output is constant", "logits"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_the_node_the_reason_and_a_way_out(name: str, tmp_path: Path) -> None:
    build, op, seen, hint = REFUSALS[name]
    m = Model()
    build(m)
    with pytest.raises(UnsupportedModelError) as caught:
        read_qonnx(m.save(tmp_path))
    error = caught.value
    assert seen in error.what
    assert hint in (error.hint or "")
    if op:
        assert error.where is not None
        assert error.where.endswith(f"({op})")
        assert any(node.name and node.name in error.where for node in m.nodes), error.where


def test_a_control_flow_node_is_refused(tmp_path: Path) -> None:
    from onnx import helper

    branch = Model((1, 3))
    branch("Relu", "x")
    graph = helper.make_graph(branch.nodes, "b", [], [helper.make_empty_tensor_value_info("v0")])
    m = Model((1, 3))
    m("If", np.array(True), then_branch=graph, else_branch=graph)
    with pytest.raises(UnsupportedModelError, match="a graph of its own") as caught:
        read_qonnx(m.save(tmp_path))
    assert "without if and loops" in str(caught.value)


def test_inputs_and_outputs(tmp_path: Path) -> None:
    for shape, seen in (
        ((1, 2, "rows", 6), r"its shape is \[1, 2, '\?', 6\]"),
        ((3,), r"its shape is \[3\]"),
        ((1, 1, 1, 3, 3), "supported are"),
        ((1, 0), "supported are"),
    ):
        m = Model(shape)
        m("Relu", "x")
        with pytest.raises(UnsupportedModelError, match=seen):
            read_qonnx(m.save(tmp_path))
    m = Model((1, 3))
    m("Relu", "x")
    m("Neg", "x")
    path = tmp_path / "two.onnx"
    path.write_bytes(m.proto("v0", "v1").SerializeToString())
    with pytest.raises(UnsupportedModelError, match=r"2 outputs \(v0, v1\)"):
        read_qonnx(path)
    m.element = 8
    with pytest.raises(UnsupportedModelError, match="ONNX type 8"):
        read_qonnx(m.save(tmp_path))
    for opset in (6, 99):
        m = Model((1, 3), opset=opset)
        m("Relu", "x")
        with pytest.raises(UnsupportedModelError, match="operator set version"):
            read_qonnx(m.save(tmp_path))


def test_a_network_without_a_vector_at_its_end(tmp_path: Path) -> None:
    m = Model()
    m("Relu", "x")
    with pytest.raises(BnnmcuError, match="not one number for each class"):
        read_qonnx(m.save(tmp_path))


def test_names_are_sanitised_and_unique(tmp_path: Path) -> None:
    m = Model((1, 3))
    x = m("Relu", "x", name="évil\x1b[31m name")
    x = m("Neg", x, name="/layers/layers.0/block/Neg")
    x = m("Neg", x, name="/layers/layers.0/block/Neg")
    m("MatMul", x, _w(3, 2), name="/layers/layers.0/fc/MatMul")
    network = read_qonnx(m.save(tmp_path))
    assert [op.name for op in network.ops] == [
        "_vil__31m_name", "layers.0.block.Neg", "layers.0.block.Neg.2", "layers.0.fc",
    ]  # fmt: skip
    m = Model((1, 3))
    m("Tanh", "x", name="évil\x1b[31m name")
    with pytest.raises(UnsupportedModelError) as caught:
        read_qonnx(m.save(tmp_path))
    assert str(caught.value).isprintable() or "\x1b" not in str(caught.value)
