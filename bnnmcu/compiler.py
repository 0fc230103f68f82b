"""Model files to float networks and integer graphs: frontends and passes together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import ModelFileError
from bnnmcu.graph import Graph
from bnnmcu.modelfile import ModelFile, read_model
from bnnmcu.network import Network
from bnnmcu.network.file import ARCHITECTURE, from_model
from bnnmcu.passes import Lowering, Quantization, lower

__all__ = ["Source", "compile_file", "read_source", "to_graph", "to_network"]


@dataclass(frozen=True, eq=False)
class Source:
    """A network as it stands in a file.

    Attributes:
        network: the float network.
        training: how it was trained, as far as the file says.
    """

    path: Path
    network: Network
    training: dict[str, Any]


def to_network(model: ModelFile) -> Network:
    """The float network in a model file of ours.

    Raises:
        ModelFileError: its manifest or its tensors are unsound.
        UnsupportedModelError: a layer cannot be expressed.
    """
    architecture = model.manifest.get("architecture")
    if architecture == ARCHITECTURE:
        return from_model(model)
    if architecture == "paper":
        from bnnmcu.frontend.paper import to_network as from_paper

        return from_paper(model)
    raise ModelFileError(
        f"unknown architecture {architecture!r}",
        where=str(model.path),
        hint="write it with 'bnnmcu train', or bnnmcu.save(module, example_input, path)",
    )


def read_source(
    path: Path, *, mean: float | tuple[float, ...] = 0.0, std: float | tuple[float, ...] = 1.0
) -> Source:
    """Read any model file: ``.pt``, ``.safetensors``, ``.onnx``.

    Args:
        mean, std: what a pixel p means to a QONNX network, (p / 255 - mean) / std;
            the other formats know it themselves.

    Raises:
        ModelFileError: it is missing, damaged, unsafe or of an unknown kind.
        UnsupportedModelError: a layer cannot be expressed.
    """
    if path.suffix == ".onnx":
        from bnnmcu.frontend.qonnx import read_qonnx

        return Source(path, read_qonnx(path, mean=mean, std=std), {})
    model = read_model(path)
    training = model.manifest.get("training")
    return Source(path, to_network(model), training if isinstance(training, dict) else {})


def compile_file(
    path: Path,
    options: Quantization | None = None,
    *,
    calibration: npt.NDArray[np.uint8] | None = None,
) -> Lowering:
    """Read and compile a model file; see :func:`read_source` and :func:`bnnmcu.passes.lower`."""
    return lower(read_source(path).network, options, calibration=calibration)


def to_graph(model: ModelFile, options: Quantization | None = None) -> Graph:
    """The integer graph of a model file that was read."""
    return lower(to_network(model), options).graph
