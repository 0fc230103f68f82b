"""One input through everything that executes a network, from the trained module to the board."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bnnmcu import reference
from bnnmcu.backend.project import Project, load_project
from bnnmcu.compare.draws import float_draws
from bnnmcu.compare.floats import FloatComparison
from bnnmcu.compare.integers import (
    BoardComparison,
    TwinComparison,
    first_difference,
    project_sources,
)
from bnnmcu.compare.report import Diff, LayerDiff, Stage
from bnnmcu.errors import UsageError
from bnnmcu.evaluate import draw_seeds
from bnnmcu.graph import Graph, infer
from bnnmcu.link.device import Device
from bnnmcu.network import Network
from bnnmcu.passes import Lowering, Quantization, lower
from bnnmcu.toolchain.native import NativeTwin

if TYPE_CHECKING:
    import torch

__all__ = ["diff"]

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class _Subject:
    """What is compared: at least a graph."""

    graph: Graph
    lowering: Lowering | None = None
    module: Any = None
    example: Any = None


def diff(
    model: torch.nn.Module | Network | Lowering | Graph | Project | str | Path,
    images: Images,
    *,
    example_input: torch.Tensor | None = None,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    options: Quantization | None = None,
    calibration: Images | None = None,
    project: Project | str | Path | None = None,
    device: Device | None = None,
    seed: int = 1,
    data: str = "given images",
    target: str = "board",
    progress: Callable[[int], object] | None = None,
) -> Diff:
    """Find the first layer and channel where the executions of a network part.

    The torch module, the float network, the integer graph, its C on this
    machine and a board get the same images and the same drawn weights.  Between
    integers every bit must be equal.  Between the float network and the graph,
    what rounding can explain is told apart from what it cannot.

    Args:
        model: a live module, a model file, a project's folder, or what was made of them.
        images: uint8, (N, H, W, C) or one of (H, W, C).
        example_input: for a module: float, (1, C, H, W), (1, C, L) or (1, F); None
            makes one of the first image, for modules that take (N, C, H, W).
        mean, std: a pixel p stands for (p / 255 - mean) / std; for modules and ``.onnx``.
        options, calibration: as for :func:`bnnmcu.export`.
        project: an exported project, whose own C is compiled and compared; None
            takes the C that an export would write.
        device: an open board or emulator that runs it.
        seed: decides all that is drawn.
        data, target: what a report calls the images and the board.

    Returns:
        the stages; ``raise_if_different()`` turns an unexplained difference into an error.

    Raises:
        UsageError: images of another shape, or options that do not suit the model.
        as :func:`bnnmcu.export`, MissingDependencyError without a C compiler, and
        LinkError where the board stops answering.
    """
    batch = images[np.newaxis] if images.ndim == 3 else images
    subject = _subject(model, batch, example_input, mean, std, options, calibration)
    if isinstance(model, Project) or (isinstance(model, (str, Path)) and Path(model).is_dir()):
        project = project or model
    chosen = load_project(Path(project)) if isinstance(project, (str, Path)) else project
    graph = subject.graph
    seeds = draw_seeds(seed, 0, len(batch), 1)
    reference.checked_seeds(graph, batch, seeds)
    if len(batch) == 0:
        raise UsageError("no images to compare", hint="give one at least")
    stages: list[Stage] = []
    labels: dict[str, tuple[int, ...]] = {}
    if subject.module is not None and not graph.stochastic:
        stages.append(_live(subject, batch, labels))
    floats = FloatComparison(subject.lowering) if subject.lowering else None
    twin, steps = _twin(graph, chosen)
    board = BoardComparison(graph, device, target) if device is not None else None
    answers: dict[str, list[npt.NDArray[Any]]] = {"integer graph": [], steps.right: [], target: []}
    for index, image in enumerate(batch):
        own = int(seeds[index, 0])
        values = _reference(graph, image, own)
        logits = values[graph.nodes[-1].name].reshape(-1)
        answers["integer graph"].append(logits)
        if floats is not None and subject.lowering is not None:
            drawn = float_draws(subject.lowering, own)
            floats.add(image, values, drawn, index=index, seed=own)
        traced = twin.trace(image, own)
        steps.add(values, traced, index=index, seed=own)
        answers[steps.right].append(traced[twin.graph.nodes[-1].name].reshape(-1))
        if board is not None:
            answers[target].append(board.add(image, logits, index=index, seed=own))
        if progress:
            progress(1)
    change: float | None = None
    layers: tuple[LayerDiff, ...] = ()
    if floats is not None:
        stages.append(floats.stage())
        labels["float network"] = _labels(floats.logits)
        change, layers = floats.logit_change, floats.layers()
    stages.append(_explained(steps.stage(), graph, chosen))
    if board is not None:
        if graph.stochastic:
            board.add_draws(int(seeds[0, 0]))
        stages.append(board.stage(twin_agrees=steps.differing == 0))
    labels |= {name: _labels(given) for name, given in answers.items() if given}
    return Diff(
        model=graph.name,
        data=data,
        images=len(batch),
        seeds=tuple(int(s) for s in seeds[:, 0]) if graph.stochastic else (),
        labels=labels,
        logit_change=change,
        stages=tuple(stages),
        layers=layers,
    )


def _subject(
    model: Any,
    images: Images,
    example: Any,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    options: Quantization | None,
    calibration: Images | None,
) -> _Subject:
    """The integer network, and what it was made from as far as there is something."""
    if isinstance(model, Graph):
        return _Subject(model)
    if isinstance(model, Project):
        return _Subject(model.graph)
    if isinstance(model, Lowering):
        return _Subject(model.graph, model)
    if isinstance(model, Network):
        lowering = lower(model, options, calibration=calibration)
        return _Subject(lowering.graph, lowering)
    if isinstance(model, (str, Path)):
        path = Path(model)
        if path.is_dir():
            return _Subject(load_project(path).graph)
        from bnnmcu.compiler import read_source

        source = read_source(path, mean=_plain(mean), std=_plain(std))
        lowering = lower(source.network, options, calibration=calibration)
        return _Subject(lowering.graph, lowering)
    from bnnmcu.frontend.trace import trace

    if example is None:
        import torch

        example = torch.zeros(1, *np.moveaxis(images[0], -1, 0).shape)
    network = trace(model, example, mean=mean, std=std)
    lowering = lower(network, options, calibration=calibration)
    return _Subject(lowering.graph, lowering, model, example)


def _plain(value: float | Sequence[float]) -> float | tuple[float, ...]:
    return float(value) if isinstance(value, (int, float)) else tuple(value)


def _live(subject: _Subject, images: Images, labels: dict[str, tuple[int, ...]]) -> Stage:
    from bnnmcu.compare.live import compare_module, module_logits

    assert subject.lowering is not None
    network = subject.lowering.network
    logits, outputs = module_logits(subject.module, network, images, subject.example)
    labels["torch module"] = _labels(list(logits))
    return compare_module(network, images, logits, outputs)


def _twin(graph: Graph, project: Project | None) -> tuple[NativeTwin, TwinComparison]:
    """The C on this machine: a project's own, or what an export would write."""
    if project is None:
        twin, name = NativeTwin(graph), "native twin"
    else:
        twin = NativeTwin(project.graph, project_sources(project), project.choice)
        name = f"native twin of {project.folder.name}"
    if _shapes(twin.graph) != _shapes(graph):
        difference = first_difference(graph, twin.graph)
        raise UsageError(
            f"the project holds another network: {difference}",
            where=name,
            hint="compare it with the model and the options that it was exported with",
        )
    steps = {step.nodes[-1]: step.nodes for step in twin.plan.steps if step.nodes}
    return twin, TwinComparison(graph, steps, name)


def _shapes(graph: Graph) -> dict[str, tuple[int, int, int]]:
    return {name: spec.shape for name, spec in infer(graph).items()}


def _explained(stage: Stage, graph: Graph, project: Project | None) -> Stage:
    """With what is known of a project beside its values."""
    if project is None:
        return stage
    said = []
    difference = first_difference(graph, project.graph)
    if difference:
        said.append(f"the project holds another graph than the model gives: {difference}")
    if project.edited:
        said.append(f"not as generated: {', '.join(project.edited[:4])}")
    return replace(stage, note="; ".join(said))


def _reference(graph: Graph, image: Images, seed: int) -> dict[str, npt.NDArray[Any]]:
    """Every value of one image, (H, W, C) or (classes,)."""
    values: dict[str, npt.NDArray[Any]] = {}
    reference.run(
        graph,
        image[np.newaxis],
        np.array([[seed]], dtype=np.uint64),
        on_value=lambda name, value: values.__setitem__(name, value[0]),
    )
    return values


def _labels(logits: Sequence[npt.NDArray[Any]]) -> tuple[int, ...]:
    return tuple(int(row.argmax()) for row in logits)
