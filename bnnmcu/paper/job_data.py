"""Which images stand for the paper's data sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnnmcu.data import Dataset, load_dataset, load_digits
from bnnmcu.errors import DataError
from bnnmcu.paper.runner import Data

__all__ = ["Sources"]

_DIGITS = "digits"
_TEST_DIGITS = 1_000


@dataclass(frozen=True)
class Sources:
    """Where the images are.

    Attributes:
        mnist: ``mnist``, a folder of IDX files, or ``digits``.
        cifar10: a folder or a file of CIFAR-10; None if there is none.
    """

    mnist: str
    cifar10: str | None = None

    @property
    def is_paper_data(self) -> bool:
        """Whether records belong beside the paper's numbers."""
        return self.mnist != _DIGITS

    @property
    def notice(self) -> str | None:
        """What must be said of the data, before anything is measured."""
        if self.is_paper_data:
            return None
        return (
            "warning: digits are not the paper's data: 4,000 training digits of MNIST to train "
            "with, and 1,000 to judge by. Records go to a file of their own"
        )

    def arguments(self) -> tuple[str, ...]:
        """Of a command that measures the same."""
        # A folder's name is one machine's; elsewhere the data are found as ``mnist``.
        return ("--data", _DIGITS) if not self.is_paper_data else ()

    def load(self, dataset: str) -> Data:
        """The images of ``mnist`` or ``cifar10``.

        Raises:
            DataError: they are not there, or unsound.
        """
        if dataset == "cifar10":
            if self.cifar10 is None:
                raise DataError(
                    "no CIFAR-10 is known",
                    where="--cifar",
                    hint="name the folder of its files: --cifar FOLDER; or choose other tables",
                )
            return Data(load_dataset(f"{self.cifar10}:train"), load_dataset(f"{self.cifar10}:test"))
        if self.is_paper_data:
            return Data(load_dataset(f"{self.mnist}:train"), load_dataset(f"{self.mnist}:test"))
        return _split_digits()


def _split_digits() -> Data:
    """The first 100 of each class to judge by, in turn, and the other 400 to train with."""
    every = load_digits()
    ordered = every.stratified(len(every))
    return Data(
        _part(ordered, np.s_[_TEST_DIGITS:], "4,000 to train"),
        _part(ordered, np.s_[:_TEST_DIGITS], "1,000 to test"),
    )


def _part(data: Dataset, part: slice, name: str) -> Dataset:
    return Dataset(f"{data.name}, {name}", data.images[part], data.labels[part])
