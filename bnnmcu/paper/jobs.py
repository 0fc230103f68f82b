"""One measurement of one network: what is asked, its name, and what came out.

Needs no torch.  A job says all that its figures depend on but the weights and
the test images; its number adds the images, and a record (results.json) adds
the weights.  So a changed recipe, protocol or data set is another job, and no
figure is ever taken for another's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bnnmcu.data import Dataset
from bnnmcu.errors import UsageError
from bnnmcu.paper.recipes import Trainable

__all__ = ["JSON", "Job", "Measured", "Report", "Value", "canonical", "settings_of"]

#: A setting: plain and unchangeable; a list is a tuple.
JSON = None | bool | int | float | str | tuple["JSON", ...]
#: A figure; a list where a figure of the paper is a curve.
Value = float | int | str | None | list[float]
#: Is told what is being done, how much of it, and of how much.
Report = Callable[[str, int, int], object]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_ID_DIGITS = 16


def canonical(value: object) -> str:
    """The one JSON text of a value: keys sorted, no spaces.

    Raises:
        UsageError: it is not plain JSON, or has a number that JSON does not know.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"not plain JSON: {error}") from error


def _frozen(value: Any) -> JSON:
    """The same, lists as tuples."""
    if isinstance(value, list | tuple):
        return tuple(_frozen(one) for one in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UsageError(f"a setting cannot be a {type(value).__name__}")


def settings_of(settings: Mapping[str, Any]) -> tuple[tuple[str, JSON], ...]:
    """Settings as a job keeps them: sorted by name, lists as tuples.

    Raises:
        UsageError: a value that is not plain JSON.
    """
    frozen = tuple((name, _frozen(settings[name])) for name in sorted(settings))
    canonical(frozen)
    return frozen


@dataclass(frozen=True)
class Job:
    """What is to be measured of which network.

    Made by :func:`bnnmcu.paper.measure.job`, which fills in what is not given,
    so that two jobs that mean the same are the same.

    Attributes:
        trainable: the network, and how it is trained.
        measure: one of :data:`bnnmcu.paper.measure.MEASURES`, or of a figure.
        settings: of the measure, by name and in order.
    """

    trainable: Trainable
    measure: str
    settings: tuple[tuple[str, JSON], ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.measure):
            raise UsageError(f"{self.measure!r} cannot be the name of a measure")
        if self.settings != settings_of(dict(self.settings)):
            raise UsageError(f"settings of {self.measure} are not in order, or named twice")

    def setting(self, name: str) -> JSON:
        """One of the settings.

        Raises:
            UsageError: there is no such setting.
        """
        for key, value in self.settings:
            if key == name:
                return value
        raise UsageError(f"{self.measure} has no setting {name!r}")

    def whole(self, name: str) -> int:
        """A setting that is a whole number.

        Raises:
            UsageError: it is not.
        """
        value = self.setting(name)
        if type(value) is not int:
            raise UsageError(f"setting {name!r} of {self.measure} is {value!r}, no whole number")
        return value

    def numbers(self, name: str) -> tuple[float, ...]:
        """A setting that is one or several numbers.

        Raises:
            UsageError: it is not.
        """
        value = self.setting(name)
        several = value if isinstance(value, tuple) else (value,)
        found = tuple(
            float(one)
            for one in several
            if isinstance(one, int | float) and not isinstance(one, bool)
        )
        if len(found) != len(several):
            raise UsageError(f"setting {name!r} of {self.measure} is {value!r}, no numbers")
        return found

    def what(self) -> dict[str, Any]:
        """All that the figures depend on but weights and images, as plain JSON values."""
        made: dict[str, Any] = json.loads(
            canonical(
                {
                    "model": {"name": self.trainable.name, **asdict(self.trainable)},
                    "recipe": self.trainable.recipe,
                    "training": {
                        "network": self.trainable.network().to_dict(),
                        **self.trainable.training().to_dict(),
                    },
                    "measure": self.measure,
                    "settings": dict(self.settings),
                }
            )
        )
        return made

    def id(self, data_name: str, data_sha256: str) -> str:
        """The job's number: 16 hex digits.

        Args:
            data_name, data_sha256: of the test images, :attr:`Dataset.name` and
                :meth:`Dataset.sha256` of the whole set.
        """
        text = canonical(
            {**self.what(), "data": {"name": data_name, "sha256": data_sha256}},
        )
        return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]

    def id_on(self, test: Dataset) -> str:
        """:meth:`id` on these images."""
        return self.id(test.name, test.sha256())


@dataclass(frozen=True)
class Measured:
    """What a measurement gave.

    Attributes:
        values: figures by name; shares are within [0, 1]; None where there is none.
        seconds: of one core, sittings before this one included as far as they stored
            what they did.
        graph_sha256: fingerprint of the integer network, in hex; None for a float one.
    """

    values: Mapping[str, Value]
    seconds: float
    graph_sha256: str | None
