"""Projects and images as the commands take them, with the warnings that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bnnmcu.cli.output import note

if TYPE_CHECKING:
    from bnnmcu.backend.project import Project
    from bnnmcu.data import Dataset
    from bnnmcu.graph import Graph

#: Input shape and classes of the bundled digits.
_DIGITS = ((28, 28, 1), 10)

_IMAGES = 100

__all__ = ["images_for", "open_project", "project_and_images", "warn_if_seen"]


def open_project(folder: Path) -> Project:
    """A project; says so if its files are not what was generated."""
    from bnnmcu.backend.project import load_project

    project = load_project(folder)
    if project.edited:
        names = ", ".join(project.edited[:4])
        more = f" and {len(project.edited) - 4} more" if len(project.edited) > 4 else ""
        note(
            f"warning: {names}{more} in {folder} is not as it was generated: a firmware built "
            f"from it is not {project.graph.name}'s as exported (export again with --force)"
        )
    return project


def images_for(graph: Graph, source: str | None, count: int | None) -> Dataset:
    """Images that a network takes, to compare executors on.

    Args:
        source: as ``load_dataset`` takes it, or ``noise``; None for digits where
            the network takes them, else noise, which is announced.
        count: how many; None for 100, or all there are.

    Raises:
        DataError: the network does not take them, or there are fewer.
    """
    from bnnmcu.data import load_dataset, noise

    if source is None and (graph.input_shape, graph.classes) != _DIGITS:
        note(f"{graph.name} does not take digits: comparing on noise (see --data)")
        source = "noise"
    if source == "noise":
        return noise(graph.input_shape, count or _IMAGES)
    images = load_dataset(source or "digits")
    images.check_suits(graph.name, graph.input_shape, graph.classes)
    return images.stratified(min(_IMAGES, len(images)) if count is None else count)


def project_and_images(
    folder: Path, source: str | None, count: int, *, labels: bool = False
) -> tuple[Project, Dataset]:
    """A project and the images to run on it, checked against each other at once.

    Args:
        source: as :func:`images_for` takes it.
        labels: whether labels are needed, so that noise will not do.
    """
    from bnnmcu.data import load_dataset

    project = open_project(folder)
    graph = project.graph
    if not labels:
        return project, images_for(graph, source, count)
    images = load_dataset(source or "digits")
    images.check_suits(graph.name, graph.input_shape, graph.classes)
    return project, images.stratified(count)


def warn_if_seen(training: Mapping[str, object], data: Dataset) -> None:
    """Accuracy on images that a network was trained on says little."""
    from bnnmcu.data import seen_in_training

    if seen_in_training(training, data):
        note(
            f"warning: the network was trained on images of {data.name}; its accuracy on them "
            "is no measure (train with --first-image 6000, or judge it on other data)"
        )
