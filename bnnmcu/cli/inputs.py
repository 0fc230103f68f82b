"""Projects and images as the commands take them, with the warnings that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bnnmcu.cli.output import note

if TYPE_CHECKING:
    from bnnmcu.backend.project import Project
    from bnnmcu.data import Dataset

__all__ = ["open_project", "project_and_images", "warn_if_seen"]


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


def project_and_images(folder: Path, source: str, count: int) -> tuple[Project, Dataset]:
    """A project and the images to run on it, checked against each other at once."""
    from bnnmcu.data import load_dataset

    project = open_project(folder)
    images = load_dataset(source)
    images.check_suits(project.graph.name, project.graph.input_shape, project.graph.classes)
    return project, images.stratified(count)


def warn_if_seen(training: Mapping[str, object], data: Dataset) -> None:
    """Accuracy on images that a network was trained on says little."""
    from bnnmcu.data import seen_in_training

    if seen_in_training(training, data):
        note(
            f"warning: the network was trained on images of {data.name}; its accuracy on them "
            "is no measure (train with --first-image 6000, or judge it on other data)"
        )
