"""Every refusal of a graph, and bounds that no input can leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bnnmcu.errors import GraphError
from bnnmcu.graph import (
    INPUT,
    Add,
    Affine,
    BinaryConv,
    Clamp,
    Conv,
    Dense,
    Graph,
    IntegerConv,
    MaxPool,
    Node,
    Relu,
    StochasticConv,
    SumPool,
    Surrogate,
    Threshold,
)


def _first(outputs: int = 2, value: int = 1, side: int = 1, **more: Any) -> IntegerConv:
    weights = np.full((outputs, side, side, more.pop("inputs", 1)), value, dtype=np.int16)
    return IntegerConv("a", INPUT, weights, **more)


def _sign(source: str = "a", channels: int = 2, kind: int = 0, **more: Any) -> Threshold:
    value = np.zeros(channels, dtype=np.int32)
    return Threshold("t", source, value, np.full(channels, kind, dtype=np.uint8), **more)


def _bits(cls: Any = BinaryConv, value: int = 1, inputs: int = 2, **more: Any) -> Any:
    return cls("b", "t", np.full((2, 1, 1, inputs), value, dtype=np.uint8), **more)


def _dense(source: str = "a", inputs: int = 2, name: str = "d", outputs: int = 2) -> Dense:
    return Dense(name, source, np.ones((outputs, inputs), dtype=np.int16))


def _graph(*nodes: Node, shape: Any = (1, 1, 1), **more: Any) -> Graph:
    return Graph(more.pop("name", "n"), shape, nodes, **more)


class Strange(Node):
    """An operation nobody has heard of."""


def _vector(dtype: Any, *values: int) -> Any:
    return np.array(values, dtype=dtype)


def _affine(source: str = "a", mul: int = 1, add: int = 0, **more: Any) -> Affine:
    factors, offsets = _vector(np.int32, mul, mul), _vector(np.int64, add, add)
    return Affine("f", source, factors, offsets, **more)


def _max(source: str = "a", **more: Any) -> MaxPool:
    return MaxPool("p", source, more.pop("kernel", (1, 1)), more.pop("stride", (1, 1)), **more)


def _sum(source: str = "a", **more: Any) -> SumPool:
    return SumPool("p", source, more.pop("kernel", (1, 1)), more.pop("stride", (1, 1)), **more)


_TRUE = np.bool_(True)
#: What is refused before a network is there to look at.
_NODES: dict[str, tuple[Callable[[], Any], str]] = {
    "name of no text": (lambda: Relu(3, "a"), "3 is no name for a layer"),  # type: ignore[arg-type]
    "source of no text": (lambda: Relu("r", None), "r: None is no name"),  # type: ignore[arg-type]
    "other of no text": (lambda: Add("s", "a", ["a"]), "s: ['a'] is no name"),  # type: ignore[arg-type]
    "weights in a list": (
        lambda: IntegerConv("a", INPUT, [[[[1]]]]), "a: array is list, not int16"),  # type: ignore[arg-type]
    "big-endian weights": (
        lambda: IntegerConv("a", INPUT, np.ones((1, 1, 1, 1), dtype=">i2")), "not int16"),
    "weights of objects": (
        lambda: Dense("d", "a", np.array([[1, None]], dtype=object)), "object, not int16"),
    "stride of truth": (lambda: _first(stride=(True, 1)), "stride is True, not a whole number"),
    "stride of numpy's truth": (lambda: _first(stride=(_TRUE, 1)), "not a whole number"),
    "stride of 2.0": (lambda: _first(stride=(2.0, 1)), "stride is 2.0, not a whole number"),
    "stride of text": (lambda: _first(stride="11"), "stride is '11', not 2 whole numbers"),
    "stride of none": (lambda: _first(stride=None), "stride is None"),
    "huge stride": (lambda: _first(stride=(1, 10**30)), f"stride is {10**30}; 1 to 65535"),
    "huge padding": (lambda: _first(padding=(0, 0, 0, 65_536)), "padding is 65536; 0 to 65535"),
    "dilation 0": (lambda: _first(dilation=(1, 0)), "dilation is 0; 1 to"),
    "three dilations": (lambda: _first(dilation=(1, 1, 1)), "not 2 whole numbers"),
    "no groups": (lambda: _first(groups=0), "groups is 0; 1 to"),
    "groups of 1.0": (lambda: _first(groups=1.0), "groups is 1.0, not a whole number"),
    "two filters in three groups": (lambda: _first(groups=3), "2 filters in 3 groups"),
    "bits of 14.0": (lambda: _first(bits=14.0), "bits is 14.0"),
    "1 bit": (lambda: _first(value=0, bits=1), "bits is 1; 2 to 16"),
    "planes of truth": (lambda: _bits(StochasticConv, planes=True), "bit-planes is True"),
    "fill of int16": (lambda: _first(fill=_vector(np.int16, 1)), "int16, not uint8"),
    "fill of two channels": (lambda: _first(fill=_vector(np.uint8, 1, 2)), "fill of shape (2,)"),
    "fill of one group": (
        lambda: _first(groups=2, fill=_vector(np.uint8, 1)), "fill of shape (1,)"),
    "surrogate with nan": (
        lambda: Surrogate(np.array([np.nan]), np.ones(1), True), "slope is not finite"),
    "surrogate with infinity": (
        lambda: Surrogate(np.ones(1), np.array([np.inf]), True), "offset is not finite"),
    "surrogate of 1": (
        lambda: Surrogate(np.ones(1), np.ones(1), 1), "rectified is 1, not a truth"),  # type: ignore[arg-type]
    "clamp of nothing": (lambda: Clamp("c", "a", 1, 0), "c: clamp to [1, 0]"),
    "clamp beyond int32": (lambda: Clamp("c", "a", 0, 2**31), "high is 2147483648"),
    "clamp below int32": (lambda: Clamp("c", "a", -(2**31) - 1, 0), "low is -2147483649"),
    "clamp at 0.5": (lambda: Clamp("c", "a", 0, 0.5), "high is 0.5"),  # type: ignore[arg-type]
    "clamp at truth": (lambda: Clamp("c", "a", False, 1), "low is False"),
    "shift 32": (lambda: _affine(shift=32), "shift is 32; 0 to 31"),
    "shift -1": (lambda: _affine(shift=-1), "shift is -1; 0 to 31"),
    "shift of truth": (lambda: _affine(shift=True), "shift is True"),
    "factors of int64": (
        lambda: Affine("f", "a", _vector(np.int64, 1), _vector(np.int64, 1)), "int64, not int32"),
    "offsets of int32": (
        lambda: Affine("f", "a", _vector(np.int32, 1), _vector(np.int32, 1)), "int32, not int64"),
    "negative factors of int64": (lambda: _affine(neg=_vector(np.int64, 1, 1)), "not int32"),
    "one negative factor": (lambda: _affine(neg=_vector(np.int32, 1)), "one length"),
    "one offset": (
        lambda: Affine("f", "a", _vector(np.int32, 1, 1), _vector(np.int64, 1)), "one length"),
    "factors of rank 2": (
        lambda: Affine("f", "a", np.ones((1, 1), np.int32), np.ones((1, 1), np.int64)), "vectors"),
    "pool of kernel 0": (lambda: _max(kernel=(0, 1)), "p: kernel is 0; 1 to"),
    "pool of kernel 65536": (lambda: _sum(kernel=(1, 65_536)), "p: kernel is 65536"),
    "pool of one side": (lambda: _sum(kernel=(2,)), "kernel is (2,), not 2 whole"),
    "pool of stride 0": (lambda: _max(stride=(0, 1)), "p: stride is 0"),
    "pool of truth": (lambda: _sum(stride=(True, True)), "stride is True"),
    "pool of negative padding": (lambda: _sum(padding=(-1, 0, 0, 0)), "padding is -1"),
    "pool of dilation 0": (lambda: _max(dilation=(0, 1)), "dilation is 0"),
    "pool of dilation 1.0": (lambda: _max(dilation=(1.0, 1)), "dilation is 1.0"),
    "minimum 2": (lambda: _max(minimum=_vector(np.uint8, 2)), "vector of 0 and 1"),
    "minimum of bool": (lambda: _max(minimum=_vector(np.bool_, 1)), "bool, not uint8"),
    "minimum of nothing": (lambda: _max(minimum=_vector(np.uint8)), "vector of 0 and 1"),
    "bias of int32": (
        lambda: Dense("d", "a", np.ones((1, 1), np.int16), _vector(np.int32, 1)), "not int64"),
    "bias of another length": (
        lambda: Dense("d", "a", np.ones((1, 1), np.int16), _vector(np.int64, 1, 1)),
        "bias of shape (2,) for 1 outputs"),
    "dense of no outputs": (lambda: Dense("d", "a", np.ones((0, 1), np.int16)), "shape (0, 1)"),
}  # fmt: skip


class Doubled(Relu):
    """A subclass of an operation is not that operation."""


def _ends(mul: int, add: int, shift: int = 0, **more: Any) -> Graph:
    """An affine map of a pixel, 0 to 255."""
    values = {"mul": _vector(np.int32, mul), "add": _vector(np.int64, add)}
    return _graph(Affine("f", INPUT, shift=shift, **values, **more))


#: What is refused of a whole network.
_NETWORKS: dict[str, tuple[Callable[[], Any], str]] = {
    "network name of no text": (lambda: _graph(_dense(INPUT, 1), name=3), "3 is no name"),
    "generator of no text": (lambda: _graph(_dense(INPUT, 1), generator=[]), "unknown generator"),
    "scale of text": (lambda: _graph(_dense(INPUT, 1), logit_scale="1"), "scale '1' is not"),
    "scale of truth": (lambda: _graph(_dense(INPUT, 1), logit_scale=True), "scale True is not"),
    "scale none": (lambda: _graph(_dense(INPUT, 1), logit_scale=None), "scale None is not"),
    "scale negative": (lambda: _graph(_dense(INPUT, 1), logit_scale=-1.0), "scale -1.0 is not"),
    "scale beyond float64": (lambda: _graph(_dense(INPUT, 1), logit_scale=10**400), "logit scale"),
    "image of floats": (lambda: _graph(_dense(INPUT, 1), shape=(1, 1.0, 1)), "input shape is 1.0"),
    "image of truth": (lambda: _graph(_dense(INPUT, 1), shape=(1, True, 1)), "input shape is True"),
    "image of text": (lambda: _graph(_dense(INPUT, 1), shape="111"), "input shape is '111'"),
    "layers of no list": (lambda: Graph("n", (1, 1, 1), None), "no tuple of nodes"),  # type: ignore[arg-type]
    "layer of no kind": (lambda: _graph("relu"), "no tuple of nodes"),  # type: ignore[arg-type]
    "subclass": (lambda: _graph(_first(), Doubled("r", "a")), "unknown operation Doubled"),
    "bare convolution": (
        lambda: _graph(Conv("c", INPUT, np.ones((1, 1, 1, 1), np.uint8))), "operation Conv"),
    "other later": (lambda: _graph(_first(), Add("s", "a", "t")), "'t' does not come before"),
    "relu on pixels": (lambda: _graph(Relu("r", INPUT)), "takes int values, gets u8"),
    "clamp on pixels": (lambda: _graph(Clamp("c", INPUT, 0, 9)), "takes int values, gets u8"),
    "clamp on bits": (lambda: _graph(_first(), _sign(), Clamp("c", "t", 0, 9)), "gets bit"),
    "sum of pixels": (lambda: _graph(Add("s", INPUT, INPUT)), "takes int values, gets u8"),
    "sum with pixels": (
        lambda: _graph(_first(), Add("s", "a", INPUT)), "adds u8 values of shape (1, 1, 1)"),
    "sum with bits": (lambda: _graph(_first(), _sign(), Add("s", "a", "t")), "adds bit values"),
    "sum of two shapes": (
        lambda: _graph(_first(), _sum(kernel=(1, 2), stride=(1, 2)), Add("s", "a", "p"),
                       shape=(1, 2, 1)),
        "adds int values of shape (1, 1, 2) to (1, 2, 2)"),
    "stochastic layer on pixels": (
        lambda: _graph(StochasticConv("b", INPUT, np.ones((1, 1, 1, 1), np.uint8))),
        "takes bit values, gets u8"),
    "channels of all groups": (
        lambda: _graph(_first(groups=2), shape=(1, 1, 1)), "takes 2 channels, gets 1"),
    "fill around sums": (
        lambda: _graph(_first(), IntegerConv("c", "a", np.ones((1, 1, 1, 2), np.int16),
                                             fill=_vector(np.uint8, 1, 2))),
        "c: only padding around pixels"),
    "fill around signs": (
        lambda: _graph(_first(), _sign(), IntegerConv(
            "c", "t", np.ones((1, 1, 1, 2), np.int16), fill=_vector(np.uint8, 1, 2))),
        "c: only padding around pixels"),
    "factors of another length": (
        lambda: _graph(_affine(INPUT)), "2 factors for 1 channels"),
    "minimum of another length": (
        lambda: _graph(_first(), _max(minimum=_vector(np.uint8, 1))), "minimum for 1 of 2"),
    "dilated kernel larger than the image": (
        lambda: _graph(_first(side=2, dilation=(3, 1)), shape=(3, 2, 1)),
        "kernel 4x2 on an input of 3x2"),
    "pool larger than the image": (
        lambda: _graph(_first(), _sum(kernel=(1, 4), padding=(0, 1, 0, 1))), "kernel 1x4 on"),
    "largest of nothing": (
        lambda: _graph(_first(), _max(padding=(1, 0, 0, 0))), "p: a window lies in the padding"),
    "largest of nothing between the taps": (
        lambda: _graph(_first(), _max(kernel=(1, 2), dilation=(1, 2), padding=(0, 1, 0, 1))),
        "p: a window lies in the padding"),
    "too many positions": (
        lambda: _graph(_first(padding=(0, 0, 0, 65_535))), "1x65536 positions"),
    "huge pool": (
        lambda: _graph(_max(INPUT, kernel=(65_535, 65_535), padding=(65_535,) * 4)),
        "positions; 65535 each way"),
    # 255 * 8421504 + 127 is 2**31 - 1; either way beyond it is refused.
    "product beyond int32": (
        lambda: _ends(8_421_504, 128), "f: a sum can reach 2147483648, more than 2147483647"),
    "product at the lowest int32": (lambda: _ends(-8_421_504, -128), "can reach 2147483648"),
    "product beyond int32 behind the shift": (
        lambda: _ends(8_421_504, 128, shift=0, neg=_vector(np.int32, 0)), "can reach 2147483648"),
    "offset beyond int64": (lambda: _ends(1, 2**63 - 255, 31), "f: a product can leave 64 bits"),
    "offset below int64": (lambda: _ends(0, -(2**63), 31), "f: a product can leave 64 bits"),
    "sum beyond int32": (
        lambda: _graph(_full(), Add("s", "f", "f")), "s: a sum can reach 4294967294"),
    "sum pool beyond int32": (
        lambda: _graph(_full(), _sum("f", kernel=(1, 2)), shape=(1, 2, 1)), "p: a sum can reach"),
    "sum pool beyond any type": (
        lambda: _graph(_full(), _sum("f", kernel=(65_535, 65_535), stride=(9, 9)),
                       shape=(65_535, 65_535, 1)),
        f"p: a sum can reach {(2**31 - 1) * 65_535**2}"),
    "weights on large values": (
        lambda: _graph(_full(), IntegerConv("c", "f", np.full((1, 1, 1, 1), -2, np.int16))),
        "c: a sum can reach 4294967294"),
    "bias beyond int64": (
        lambda: _graph(Dense("d", INPUT, np.ones((1, 1), np.int16), np.array([2**63 - 255]))),
        f"d: a sum can reach {2**63}"),
    "bias below int64": (
        lambda: _graph(Dense("d", INPUT, np.ones((1, 1), np.int16), _vector(np.int64, -(2**63)))),
        f"d: a sum can reach {2**63}"),
}  # fmt: skip


def _full() -> Affine:
    """Up to 2**31 - 1 exactly."""
    return Affine("f", INPUT, _vector(np.int32, 8_421_504), _vector(np.int64, 127))


_REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    # Nodes by themselves.
    "no name": (lambda: Relu("", "a"), "no name for a layer"),
    "name of the image": (lambda: Relu("input", "a"), "'input'"),
    "name with a quote": (lambda: Relu('a"', "a"), "no name for a layer"),
    "name with a newline": (lambda: Relu("a\n", "a"), "no name for a layer"),
    "name of 49": (lambda: Relu("a" * 49, "a"), "no name for a layer"),
    "weights of rank 3": (
        lambda: BinaryConv("b", "t", np.ones((1, 1, 1), dtype=np.uint8)), "shape (1, 1, 1)"),
    "no filters": (
        lambda: BinaryConv("b", "t", np.ones((0, 1, 1, 1), dtype=np.uint8)), "shape (0, 1"),
    "stride 0": (lambda: _first(stride=(0, 1)), "a: stride is 0; 1 to 65535"),
    "one stride": (lambda: _first(stride=(1,)), "a: stride is (1,), not 2 whole numbers"),
    "negative padding": (lambda: _first(side=3, padding=(0, -1, 0, 0)), "a: padding is -1; 0 to"),
    "three paddings": (
        lambda: _first(side=3, padding=(0, 0, 0)), "a: padding is (0, 0, 0), not 4 whole"),
    "float weights": (lambda: IntegerConv("a", INPUT, np.ones((1, 1, 1, 1))), "float64, not int16"),
    "weights of 15 bits in 14": (lambda: _first(value=8192), "do not fit 14 bits"),
    "smallest int16": (lambda: _first(value=-32768, bits=16), "do not fit 16 bits"),
    "17 bits": (lambda: _first(bits=17), "bits is 17; 2 to 16"),
    "binary 2": (lambda: _bits(value=2), "must be 0 or 1"),
    "signed binary": (
        lambda: BinaryConv("b", "t", np.ones((1, 1, 1, 1), dtype=np.int8)), "int8, not uint8"),
    "k = 1": (lambda: _bits(StochasticConv, planes=1), "bit-planes is 1; 2 to 8"),
    "k = 9": (lambda: _bits(StochasticConv, planes=9), "bit-planes is 9; 2 to 8"),
    "level beyond k": (lambda: _bits(StochasticConv, value=8, planes=3), "do not fit 3 bits"),
    "thresholds of int64": (
        lambda: Threshold("t", "a", np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.uint8)),
        "int64, not int32"),
    "two lengths": (
        lambda: Threshold("t", "a", np.zeros(2, dtype=np.int32), np.zeros(3, dtype=np.uint8)),
        "one length"),
    "threshold kind 4": (lambda: _sign(kind=4), "unknown threshold kind"),
    "surrogate of another length": (
        lambda: _sign(surrogate=Surrogate(np.ones(3), np.ones(3), True)), "another length"),
    "surrogate in float32": (
        lambda: Surrogate(np.ones(3, dtype=np.float32), np.ones(3), True), "float32, not float64"),
    "dense of rank 1": (lambda: Dense("d", "a", np.ones(3, dtype=np.int16)), "shape (3,)"),
    "dense of int32": (
        lambda: Dense("d", "a", np.ones((1, 3), dtype=np.int32)), "int32, not int16"),
    **_NODES,
    # Networks.
    "network name": (lambda: _graph(_first(), _dense(), name="a b"), "no name for a network"),
    "network name of 32": (lambda: _graph(_first(), _dense(), name="a" * 32), "no name"),
    "generator": (lambda: _graph(_first(), _dense(), generator="rand"), "unknown generator"),
    "scale 0": (lambda: _graph(_first(), _dense(), logit_scale=0.0), "logit scale"),
    "scale nan": (lambda: _graph(_first(), _dense(), logit_scale=float("nan")), "logit scale"),
    "scale infinite": (lambda: _graph(_first(), _dense(), logit_scale=float("inf")), "logit scale"),
    "image of rank 2": (lambda: _graph(_first(), _dense(), shape=(1, 1)), "input shape"),
    "empty image": (lambda: _graph(_first(), _dense(), shape=(0, 1, 1)), "input shape"),
    "wide image": (
        lambda: _graph(_first(), _dense(), shape=(65_536, 1, 1)), "input shape is 65536; 1 to"),
    "no layers": (lambda: _graph(), "without layers"),
    "bits at the end": (lambda: _graph(_first(), _sign()), "last layer must give one integer"),
    "two positions at the end": (
        lambda: _graph(_first(), shape=(1, 2, 1)), "not int values of shape (1, 2, 2)"),
    "pixels at the end": (
        lambda: _graph(MaxPool("p", INPUT, (1, 1), (1, 1))), "not u8 values of shape (1, 1, 1)"),
    "dense layer not last": (
        lambda: _graph(_first(), _dense(), Relu("r", "d")), "d: only the last layer can be dense"),
    "same name twice": (lambda: _graph(_first(), Relu("a", "a"), _dense()), "two layers"),
    "source unknown": (lambda: _graph(_first(), _dense("x")), "'x' does not come before"),
    "source later": (
        lambda: _graph(_first(), Relu("r", "d"), Relu("d", "r")), "'d' does not come before"),
    "own source": (lambda: _graph(_first(), Relu("r", "r"), _dense("r")), "'r' does not come"),
    "unknown operation": (
        lambda: _graph(_first(), Strange("s", "a"), _dense("s")), "unknown operation Strange"),
    "channels": (lambda: _graph(_first(inputs=3), _dense()), "takes 3 channels, gets 1"),
    "kernel larger than the image": (
        lambda: _graph(_first(side=3), _dense(), shape=(2, 5, 1)), "kernel 3x3 on an input of 2x5"),
    "dense size": (lambda: _graph(_first(), _dense(inputs=3)), "takes 3 values, gets 2"),
    "threshold count": (
        lambda: _graph(_first(), _sign(channels=3), _bits(inputs=3), _dense("b")),
        "3 thresholds for 2 channels"),
    "binary layer on pixels": (
        lambda: _graph(
            BinaryConv("a", INPUT, np.ones((2, 1, 1, 1), dtype=np.uint8)), _dense()),
        "takes bit values, gets u8"),
    "binary layer on sums": (
        lambda: _graph(_first(), Relu("t", "a"), _bits(), _dense("b")), "takes bit values"),
    "threshold on bits": (
        lambda: _graph(_first(), _sign(), Threshold(
            "u", "t", np.zeros(2, dtype=np.int32), np.zeros(2, dtype=np.uint8)), _dense()),
        "takes u8 or int values, gets bit"),
    "relu on bits": (lambda: _graph(_first(), _sign(), Relu("r", "t"), _dense("r")), "gets bit"),
    # 258 taps of 32,767 * 255 are the first to pass 2^31 - 1.
    "int32 sum overflows": (
        lambda: _graph(_first(value=32_767, inputs=258, bits=16), _dense(), shape=(1, 1, 258)),
        "a: a sum can reach 2155740930"),
    "negative int32 sum overflows": (
        lambda: _graph(_first(value=-32_767, inputs=258, bits=16), _dense(), shape=(1, 1, 258)),
        "a: a sum can reach 2155740930"),
    "classes": (lambda: _graph(_first(1), _dense(inputs=1, outputs=65_536)), "65535 each way"),
    **_NETWORKS,
}  # fmt: skip


@pytest.mark.parametrize("case", _REFUSED)
def test_refusals(case: str) -> None:
    make, words = _REFUSED[case]
    with pytest.raises(GraphError) as caught:
        make()
    assert words in str(caught.value)
