"""The paper's trained networks B, C and S to integer graphs (paper, section 3, figure 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import ModelFileError, UnsupportedModelError, UsageError
from bnnmcu.frontend.fold import (
    fold_threshold,
    quantize_dense,
    quantize_per_channel,
    quantize_probability,
)
from bnnmcu.graph import (
    INPUT,
    MAX_PLANES,
    MIN_PLANES,
    BinaryConv,
    Conv,
    Dense,
    Graph,
    IntegerConv,
    Relu,
    StochasticConv,
    Surrogate,
    Threshold,
)
from bnnmcu.lfsr import GENERATORS
from bnnmcu.modelfile import ModelFile
from bnnmcu.nn.config import CLASSES, PaperConfig

__all__ = ["Quantization", "to_graph"]

_BN_EPS = 1e-5
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Quantization:
    """What an export may choose.

    Attributes:
        first_layer_bits: width of the first layer's integer weights, 8 to 14.
        planes: k, bit-planes of a stochastic layer's probabilities.
        generator: of the draws, a key of :data:`bnnmcu.lfsr.GENERATORS`.
    """

    first_layer_bits: int = 14
    planes: int = 4
    generator: str = "xorshift128"

    def __post_init__(self) -> None:
        if not 8 <= self.first_layer_bits <= 14:
            raise UsageError(f"first layer of {self.first_layer_bits} bits; 8 to 14 are possible")
        if not MIN_PLANES <= self.planes <= MAX_PLANES:
            raise UsageError(
                f"{self.planes} bit-planes; {MIN_PLANES} to {MAX_PLANES} are possible",
                where="--planes",
            )
        if self.generator not in GENERATORS:
            raise UsageError(f"unknown generator {self.generator!r}", where="--generator")


class _Tensors:
    """A model file's tensors, each taken once and checked against its shape."""

    def __init__(self, model: ModelFile) -> None:
        self._left = dict(model.tensors)
        self._where = str(model.path)

    def take(self, name: str, shape: tuple[int, ...]) -> Array:
        if name not in self._left:
            raise ModelFileError(f"tensor {name!r} is missing", where=self._where)
        tensor = self._left.pop(name)
        if tensor.shape != shape:
            raise ModelFileError(
                f"tensor {name!r} has shape {tensor.shape}, not {shape}", where=self._where
            )
        return tensor

    def finish(self) -> None:
        if self._left:
            names = ", ".join(sorted(self._left)[:4])
            raise ModelFileError(
                f"{len(self._left)} tensors that the network does not have: {names}",
                where=self._where,
            )


def _threshold(
    name: str, tensors: _Tensors, norm: str, conv: Conv, sum_scale: Array | float, bound: Array
) -> Threshold:
    """ReLU, scale, batch norm and sign after a convolution, as one comparison.

    Args:
        sum_scale: float value of one unit of the sum, learned scale included.
        bound: smallest and largest sum of each channel, int64, shape (2, C).
    """
    channels = conv.weights.shape[0]
    mean = tensors.take(f"{norm}.running_mean", (channels,)).astype(np.float64)
    variance = tensors.take(f"{norm}.running_var", (channels,)).astype(np.float64)
    shift = tensors.take(f"{norm}.bias", (channels,)).astype(np.float64)
    if np.any(variance < 0):
        raise ModelFileError("a batch-norm variance is negative", where=norm)
    deviation = np.sqrt(variance + _BN_EPS)
    surrogate = Surrogate(
        slope=np.broadcast_to(sum_scale / deviation, (channels,)).astype(np.float64),
        offset=shift - mean / deviation,
        rectified=True,
    )
    value, kind = fold_threshold(surrogate, bound[0], bound[1])
    return Threshold(name, conv.name, value, kind, surrogate)


def _first_layer(tensors: _Tensors, config: PaperConfig, bits: int) -> tuple[IntegerConv, Array]:
    channels = config.input_shape[2]
    weights = tensors.take("conv1.weight", (config.filters, channels, 8, 8))
    integers, scale = quantize_per_channel(weights.transpose(0, 2, 3, 1), bits)
    conv = IntegerConv("conv1", INPUT, integers, (2, 2), (3, 3, 3, 3), bits=bits)
    # A pixel p stands for p / 255.
    return conv, scale / 255.0


def _hidden(
    name: str,
    source: str,
    weights: Array,
    stride: int,
    planes: int | None,
) -> BinaryConv | StochasticConv:
    ordered = weights.transpose(0, 2, 3, 1)
    if planes is None:
        return BinaryConv(name, source, (ordered >= 0).astype(np.uint8), (stride, stride))
    probability = np.clip((ordered.astype(np.float64) + 1.0) / 2.0, 0.0, 1.0)
    levels = quantize_probability(probability, planes)
    return StochasticConv(name, source, levels, (stride, stride), planes=planes)


def _taps(conv: Conv) -> Array:
    taps = int(np.prod(conv.weights.shape[1:]))
    return np.array([[-taps], [taps]], dtype=np.int64).repeat(conv.weights.shape[0], axis=1)


def _integer_bounds(conv: IntegerConv) -> Array:
    flat = conv.weights.reshape(len(conv.weights), -1).astype(np.int64)
    return np.stack([255 * np.minimum(flat, 0).sum(axis=1), 255 * np.maximum(flat, 0).sum(axis=1)])


def to_graph(model: ModelFile, quantization: Quantization | None = None) -> Graph:
    """Fold and quantise a trained network of the paper.

    Raises:
        ModelFileError: tensors are missing, unexpected or of the wrong shape.
        UnsupportedModelError: a layer cannot be expressed (model A's hidden layers).
    """
    options = quantization or Quantization()
    config = PaperConfig.from_manifest(model.manifest, str(model.path))
    if config.kind == "A":
        raise UnsupportedModelError(
            "full-precision convolution with a ReLU activation; hidden layers must take signs "
            "and have binary or stochastic-binary weights",
            where="conv2",
            hint="train a binary network: bnnmcu train --model B64",
        )
    width = config.filters
    tensors = _Tensors(model)
    scaled = config.kind in ("C", "S")
    scale2 = float(tensors.take("scale2.value", ())) if scaled else 1.0
    scale3 = float(tensors.take("scale3.value", ())) if scaled else 1.0

    conv1, unit = _first_layer(tensors, config, options.first_layer_bits)
    sign2 = _threshold("sign2", tensors, "norm2", conv1, unit, _integer_bounds(conv1))
    weights = tensors.take("conv2.weight", (2 * width, width, 6, 6))
    conv2 = _hidden("conv2", sign2.name, weights, 2, None)
    sign3 = _threshold("sign3", tensors, "norm3", conv2, scale2, _taps(conv2))
    weights = tensors.take("conv3.weight", (2 * width, 2 * width, 5, 5))
    planes = options.planes if config.kind == "S" else None
    conv3 = _hidden("conv3", sign3.name, weights, 1, planes)
    relu3 = Relu("relu3", conv3.name)

    side = config.last_side
    dense = tensors.take("dense.weight", (CLASSES, 2 * width * side * side)).astype(np.float64)
    # torch flattens (C, H, W); the graph flattens (H, W, C).
    dense = dense.reshape(CLASSES, 2 * width, side, side).transpose(0, 2, 3, 1)
    integers, logit_scale = quantize_dense(scale3 * dense.reshape(CLASSES, -1))
    tensors.finish()
    return Graph(
        name=config.name,
        input_shape=config.input_shape,
        nodes=(conv1, sign2, conv2, sign3, conv3, relu3, Dense("dense", relu3.name, integers)),
        logit_scale=logit_scale,
        generator=options.generator,
    )
