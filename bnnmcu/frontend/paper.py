"""The paper's trained networks B, C and S (paper, section 3, figure 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import ModelFileError, UnsupportedModelError
from bnnmcu.modelfile import ModelFile
from bnnmcu.network import Affine, Clamp, Conv, Flatten, Linear, Network, Op, Sign
from bnnmcu.network.ops import INPUT
from bnnmcu.nn.config import CLASSES, PaperConfig

__all__ = ["to_network"]

_BN_EPS = 1e-5
Array = npt.NDArray[Any]


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


def _relu(name: str, source: str) -> Clamp:
    return Clamp(name, source, 0.0, float("inf"))


def _norm(name: str, source: str, tensors: _Tensors, channels: int) -> Affine:
    """Batch norm without gamma, as in the authors' code."""
    mean = tensors.take(f"{name}.running_mean", (channels,)).astype(np.float64)
    variance = tensors.take(f"{name}.running_var", (channels,)).astype(np.float64)
    shift = tensors.take(f"{name}.bias", (channels,)).astype(np.float64)
    if np.any(variance < 0):
        raise ModelFileError("a batch-norm variance is negative", where=name)
    deviation = np.sqrt(variance + _BN_EPS)
    return Affine(name, source, 1.0 / deviation, shift - mean / deviation)


def _signs(weights: Array) -> Array:
    return np.where(weights >= 0, 1.0, -1.0)


def _hidden(
    name: str, source: str, tensors: _Tensors, shape: tuple[int, ...], stride: int, drawn: bool
) -> Conv:
    weights = tensors.take(f"{name}.weight", shape).astype(np.float64)
    # P(+1) is the hard sigmoid of the weight (paper, footnote 2).
    weights = np.clip((weights + 1.0) / 2.0, 0.0, 1.0) if drawn else _signs(weights)
    return Conv(name, source, weights, stride=(stride, stride), drawn=drawn)


def to_network(model: ModelFile) -> Network:
    """A trained network of the paper.

    Raises:
        ModelFileError: tensors are missing, unexpected or of the wrong shape.
        UnsupportedModelError: model A, whose hidden layers are not binary, or S
            with one draw for all filters.
    """
    config = PaperConfig.from_manifest(model.manifest, str(model.path))
    if config.form == "shared-draw":
        raise UnsupportedModelError(
            "all filters share one draw; a device draws every weight for itself, and exported "
            "so it would be another network",
            where="conv3",
            hint="this form is for study in torch only; train S without --form shared-draw",
        )
    if config.kind == "A":
        raise UnsupportedModelError(
            "full-precision convolution with a ReLU activation; hidden layers must take signs "
            "and have binary or stochastic-binary weights",
            where="conv2",
            hint="train a binary network: bnnmcu train --model B64",
        )
    width, channels = config.filters, config.input_shape[2]
    tensors = _Tensors(model)
    scaled = config.kind in ("C", "S")
    ops: list[Op] = []

    def then(op: Op) -> str:
        ops.append(op)
        return op.name

    def scale(name: str, source: str) -> str:
        if not scaled:
            return source
        value = float(tensors.take(f"{name}.value", ()))
        return then(Affine(name, source, np.full(2 * width, value), np.zeros(2 * width)))

    weights = tensors.take("conv1.weight", (width, channels, 8, 8))
    last = then(Conv("conv1", INPUT, weights, stride=(2, 2), padding=(3, 3, 3, 3)))
    last = then(_norm("norm2", then(_relu("relu1", last)), tensors, width))
    last = then(Sign("sign2", last))
    last = then(_hidden("conv2", last, tensors, (2 * width, width, 6, 6), 2, False))
    last = scale("scale2", then(_relu("relu2", last)))
    last = then(Sign("sign3", then(_norm("norm3", last, tensors, 2 * width))))
    drawn = config.kind == "S"
    last = then(_hidden("conv3", last, tensors, (2 * width, 2 * width, 5, 5), 1, drawn))
    last = then(Flatten("flatten", scale("scale3", then(_relu("relu3", last)))))
    features = 2 * width * config.last_side**2
    then(Linear("dense", last, tensors.take("dense.weight", (CLASSES, features))))
    tensors.finish()
    height, length, _ = config.input_shape
    return Network(
        name=config.name,
        input_shape=(channels, height, length),
        ops=tuple(ops),
        input_scale=np.full(channels, 1.0 / 255.0),
        input_offset=np.zeros(channels),
    )
