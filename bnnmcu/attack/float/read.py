"""Float models from model files: all that compile, and the paper's model A, which does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.config.base import Estimator
from bnnmcu.attack.float.model import FloatModel
from bnnmcu.compiler import read_source
from bnnmcu.errors import ModelFileError
from bnnmcu.modelfile import ModelFile, read_model
from bnnmcu.network import Clamp, Conv, Flatten, Linear, Network, Op
from bnnmcu.network.ops import INPUT
from bnnmcu.nn.config import CLASSES, PaperConfig

__all__ = ["load_float_model", "read_float_network"]


def _model_a(model: ModelFile, config: PaperConfig) -> Network:
    """The paper's full-precision network: three convolutions with ReLU, and a dense layer."""
    width, channels, side = config.filters, config.input_shape[2], config.last_side
    left = dict(model.tensors)

    def take(name: str, *shape: int) -> npt.NDArray[np.float64]:
        tensor = left.pop(f"{name}.weight", None)
        if tensor is None or tensor.shape != shape:
            found = "missing" if tensor is None else f"of shape {tensor.shape}"
            raise ModelFileError(
                f"tensor '{name}.weight' is {found}; {shape} is needed",
                where=str(model.path),
                hint="write the file again with 'bnnmcu train'",
            )
        return tensor.astype(np.float64)

    ops: list[Op] = []
    last = INPUT
    for index, (inputs, outputs, kernel, stride, pad) in enumerate(
        (
            (channels, width, 8, 2, 3),
            (width, 2 * width, 6, 2, 0),
            (2 * width, 2 * width, 5, 1, 0),
        ),
        1,
    ):
        weights = take(f"conv{index}", outputs, inputs, kernel, kernel)
        conv = Conv(f"conv{index}", last, weights, stride=(stride, stride), padding=(pad,) * 4)
        relu = Clamp(f"relu{index}", conv.name, 0.0, np.inf)
        ops += [conv, relu]
        last = relu.name
    ops.append(Flatten("flatten", last))
    ops.append(Linear("dense", "flatten", take("dense", CLASSES, 2 * width * side * side)))
    if left:
        raise ModelFileError(
            f"{len(left)} tensors that the network does not have: {', '.join(sorted(left)[:4])}",
            where=str(model.path),
        )
    return Network(
        name=config.name,
        input_shape=(channels, *config.input_shape[:2]),
        ops=tuple(ops),
        input_scale=np.full(channels, 1.0 / 255.0),
        input_offset=np.zeros(channels),
    )


def read_float_network(
    path: Path, *, mean: float | tuple[float, ...] = 0.0, std: float | tuple[float, ...] = 1.0
) -> Network:
    """The float network of any model file; see :func:`bnnmcu.compiler.read_source`.

    Also of the paper's model A, which is full precision and has no integer network.

    Raises:
        ModelFileError: it is missing, damaged, unsafe or of an unknown kind.
        UnsupportedModelError: a layer cannot be expressed.
    """
    if path.suffix != ".onnx":
        model = read_model(path)
        if model.manifest.get("architecture") == "paper":
            config = PaperConfig.from_manifest(model.manifest, str(path))
            if config.kind == "A":
                return _model_a(model, config)
    return read_source(path, mean=mean, std=std).network


def load_float_model(
    path: Path,
    *,
    estimator: Estimator = "tanh",
    mean: float | tuple[float, ...] = 0.0,
    std: float | tuple[float, ...] = 1.0,
) -> FloatModel:
    """The float model of any model file; arguments and errors as :func:`read_float_network`."""
    return FloatModel(read_float_network(path, mean=mean, std=std), estimator)
