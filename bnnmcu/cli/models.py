"""Model files as the commands take them: read, compiled, and announced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bnnmcu.cli.output import note
from bnnmcu.errors import UsageError

if TYPE_CHECKING:
    from bnnmcu.backend.choice import KernelChoice
    from bnnmcu.graph import Graph
    from bnnmcu.passes import Lowering

__all__ = ["Model", "compile_model", "read_any"]

# Pixel positions that a calibration looks at: more images change it little.
_CALIBRATION_PIXELS = 200_000


@dataclass(frozen=True, eq=False)
class Model:
    """A network, however it was given.

    Attributes:
        graph: the integer network.
        lowering: how it was compiled; None for an exported project.
        training: how it was trained, as far as the file says.
        choice: of an exported project's kernels; None for a model file.
    """

    graph: Graph
    lowering: Lowering | None
    training: dict[str, Any]
    choice: KernelChoice | None = None


def compile_model(
    path: Path,
    quantization: Mapping[str, Any],
    *,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    data: str | None = None,
) -> Model:
    """Read and compile a model file of any kind.

    Args:
        quantization: the options of ``quantization_options``.
        mean, std: of an ``.onnx`` file's pixels; None for 0 and 1.
        data: images for a calibrated first layer, as ``load_dataset`` takes them.

    Raises:
        UsageError: a calibrated first layer without images, or ``mean`` or ``std``
            for a file that says itself what pixels mean.
    """
    from bnnmcu.compiler import read_source
    from bnnmcu.passes import Quantization, lower

    if path.suffix != ".onnx" and (mean or std):
        raise UsageError(
            "this file says itself what its pixels mean",
            where="--mean" if mean else "--std",
            hint="leave it out; only .onnx files need it",
        )
    source = read_source(path, mean=_plain(mean, 0.0), std=_plain(std, 1.0))
    options = Quantization(**_as_trained(quantization, source.training))
    calibration = None
    if options.first_layer == "calibrated" and data is not None:
        from bnnmcu.data import load_dataset

        images = load_dataset(data)
        channels, height, width = source.network.input_shape
        images.check_suits(source.network.name, (height, width, channels))
        count = max(1, min(len(images), _CALIBRATION_PIXELS // (height * width)))
        calibration = images.stratified(count).images
        note(f"the first layer is calibrated on {count} images of {images.name}")
    lowering = lower(source.network, options, calibration=calibration)
    return Model(lowering.graph, lowering, source.training)


def _as_trained(quantization: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with the width that the first layer was trained for unless one was typed."""
    trained = training.get("first_bits")
    given = quantization.get("first_layer_bits")
    if type(trained) is not int or not 8 <= trained <= 14 or trained == given:
        return dict(quantization)
    context = click.get_current_context(silent=True)
    typed = context and context.get_parameter_source("first_layer_bits")
    if typed in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
        note(f"the first layer was trained with {trained} bits, and gets {given}")
        return dict(quantization)
    note(f"the first layer has {trained} bits, as it was trained; --first-layer-bits is for others")
    return dict(quantization) | {"first_layer_bits": trained}


def _plain(numbers: tuple[float, ...] | None, default: float) -> float | tuple[float, ...]:
    if numbers is None:
        return default
    return numbers[0] if len(numbers) == 1 else numbers


def read_any(
    path: Path,
    quantization: Mapping[str, Any],
    *,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    data: str | None = None,
) -> Model:
    """A model file, compiled, or the graph of an exported project; see :func:`compile_model`."""
    if not path.is_dir():
        return compile_model(path, quantization, mean=mean, std=std, data=data)
    if mean or std:
        raise UsageError(
            "a project knows what its pixels mean",
            where="--mean" if mean else "--std",
            hint="leave it out; only .onnx files need it",
        )
    from bnnmcu.cli.inputs import open_project

    project = open_project(path)
    return Model(project.graph, None, project.training, project.choice)
