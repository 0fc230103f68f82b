"""One record of the results: what was measured, of which weights, where and with what."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bnnmcu.errors import StoreError
from bnnmcu.paper.jobs import Value, canonical

__all__ = ["Record", "record_id"]

_ID = re.compile(r"[0-9a-f]{16}\Z")
_SHA = re.compile(r"[0-9a-f]{64}\Z")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")
_MAX_TEXT = 1_000
_MAX_VALUES = 1_000
_MAX_CURVE = 100_000
_FIELDS = {
    "id",
    "what",
    "data",
    "values",
    "model_sha256",
    "graph_sha256",
    "seconds",
    "device",
    "versions",
    "machine",
    "made_at",
    "command",
}
_VERSIONS = {"bnnmcu", "torch", "numpy", "python"}
_WHAT = {"model", "recipe", "training", "measure", "settings"}


def record_id(what: Mapping[str, Any], data_name: str, data_sha256: str) -> str:
    """The number that follows from what was measured (:meth:`bnnmcu.paper.jobs.Job.id`)."""
    text = canonical({**what, "data": {"name": data_name, "sha256": data_sha256}})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Record:
    """One measurement.

    Attributes:
        id: 16 hex digits, which follow from ``what`` and the test images.
        what: model, recipe, training, measure and settings
            (:meth:`bnnmcu.paper.jobs.Job.what`).
        data_name, data_sha256, data_images: of the whole test set.
        values: figures by name; shares of 1.
        model_sha256: of the model file, in hex.
        graph_sha256: of the integer network, in hex; None for a float one.
        training_seconds: core-seconds; None if nobody wrote them down.
        measuring_seconds: core-seconds.
        device: that trained and crafted: ``cpu`` or ``cuda``.
        versions: of bnnmcu, torch, numpy and python; None of what is not known.
        machine: its processor.
        made_at: UTC, such as ``2026-01-31T12:00:00Z``.
        command: the ``bnnmcu paper ...`` that makes it.
    """

    id: str
    what: Mapping[str, Any]
    data_name: str
    data_sha256: str
    data_images: int
    values: Mapping[str, Value]
    model_sha256: str
    graph_sha256: str | None
    training_seconds: float | None
    measuring_seconds: float
    device: str
    versions: Mapping[str, str | None]
    machine: str
    made_at: str
    command: str

    @property
    def name(self) -> str:
        """The network as the paper writes it, such as ``B64+``."""
        return str(self.what["model"]["name"])

    @property
    def seed(self) -> int:
        """Of the training."""
        return int(self.what["model"]["seed"])

    @property
    def measure(self) -> str:
        """What was measured."""
        return str(self.what["measure"])

    @property
    def title(self) -> str:
        """For sentences: network, recipe, seed and measure."""
        return f"{self.name}, {self.what['recipe']}, seed {self.seed}, {self.measure}"

    def number(self, name: str) -> float | None:
        """A figure; None where there is none, or where it is no number."""
        value = self.values.get(name)
        return float(value) if isinstance(value, int | float) else None

    def facts(self) -> tuple[object, ...]:
        """What two records of one id must share."""
        return (canonical(dict(self.values)), self.model_sha256, self.graph_sha256)

    def to_dict(self) -> dict[str, Any]:
        """As stored."""
        return {
            "id": self.id,
            "what": dict(self.what),
            "data": {
                "name": self.data_name,
                "sha256": self.data_sha256,
                "images": self.data_images,
            },
            "values": dict(self.values),
            "model_sha256": self.model_sha256,
            "graph_sha256": self.graph_sha256,
            "seconds": {
                "training": None if self.training_seconds is None else float(self.training_seconds),
                "measuring": float(self.measuring_seconds),
            },
            "device": self.device,
            "versions": dict(self.versions),
            "machine": self.machine,
            "made_at": self.made_at,
            "command": self.command,
        }

    @classmethod
    def from_dict(cls, value: Any, where: str, hint: str) -> Record:
        """A record from what somebody's file holds.

        Raises:
            StoreError: a field is missing, unknown, or not what it must be.
        """
        check = _Check(where, hint)
        check.that(isinstance(value, dict), "is no object")
        check.that(set(value) == _FIELDS, f"must have exactly {', '.join(sorted(_FIELDS))}")
        check.text(value["id"], "id", _ID)
        what, data = check.object(value["what"], "what"), check.object(value["data"], "data")
        check.that(set(what) == _WHAT, "what: must have exactly " + ", ".join(sorted(_WHAT)))
        model = check.object(what["model"], "what.model")
        for name in ("name", "kind", "regimen", "recipe", "dataset", "form"):
            check.text(model.get(name), f"what.model.{name}")
        for name in ("filters", "seed"):
            check.that(type(model.get(name)) is int, f"what.model.{name}: is no whole number")
        check.text(what["recipe"], "what.recipe")
        check.text(what["measure"], "what.measure")
        check.object(what["training"], "what.training")
        check.object(what["settings"], "what.settings")
        check.that(set(data) == {"name", "sha256", "images"}, "data: needs name, sha256, images")
        check.text(data["name"], "data.name")
        check.text(data["sha256"], "data.sha256", _SHA)
        check.that(type(data["images"]) is int and data["images"] > 0, "data.images: is no count")
        check.that(
            record_id(what, data["name"], data["sha256"]) == value["id"],
            f"id {value['id']} is not that of what it says was measured",
        )
        seconds = check.object(value["seconds"], "seconds")
        check.that(set(seconds) == {"training", "measuring"}, "seconds: needs training, measuring")
        if seconds["training"] is not None:
            check.duration(seconds["training"], "seconds.training")
        check.duration(seconds["measuring"], "seconds.measuring")
        versions = check.object(value["versions"], "versions")
        check.that(set(versions) == _VERSIONS, "versions: needs " + ", ".join(sorted(_VERSIONS)))
        for name, version in versions.items():
            if version is not None:
                check.text(version, f"versions.{name}")
        check.values(value["values"])
        check.text(value["model_sha256"], "model_sha256", _SHA)
        if value["graph_sha256"] is not None:
            check.text(value["graph_sha256"], "graph_sha256", _SHA)
        check.that(value["device"] in ("cpu", "cuda"), "device: is neither cpu nor cuda")
        check.text(value["machine"], "machine")
        check.text(value["made_at"], "made_at", _TIME)
        check.text(value["command"], "command")
        return cls(
            id=value["id"],
            what=what,
            data_name=data["name"],
            data_sha256=data["sha256"],
            data_images=data["images"],
            values=value["values"],
            model_sha256=value["model_sha256"],
            graph_sha256=value["graph_sha256"],
            training_seconds=seconds["training"],
            measuring_seconds=seconds["measuring"],
            device=value["device"],
            versions=versions,
            machine=value["machine"],
            made_at=value["made_at"],
            command=value["command"],
        )


class _Check:
    """Says where in a file something is not what it must be."""

    def __init__(self, where: str, hint: str) -> None:
        self._where, self._hint = where, hint

    def that(self, fine: bool, what: str) -> None:
        if not fine:
            raise StoreError(what, where=self._where, hint=self._hint)

    def object(self, value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise StoreError(f"{name}: is no object", where=self._where, hint=self._hint)
        return value

    def text(self, value: Any, name: str, pattern: re.Pattern[str] | None = None) -> None:
        # Printable, since it is shown on terminals.
        fine = isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and value.isprintable()
        self.that(fine, f"{name}: is no printable text of 1 to {_MAX_TEXT} characters")
        if pattern is not None:
            self.that(pattern.match(value) is not None, f"{name}: is not of the form it must have")

    def duration(self, value: Any, name: str) -> None:
        self.that(_is_number(value) and value >= 0, f"{name}: is no number of seconds")

    def values(self, value: Any) -> None:
        found = self.object(value, "values")
        self.that(len(found) <= _MAX_VALUES, f"values: more than {_MAX_VALUES}")
        for name, one in found.items():
            self.text(name, "name of a value")
            if isinstance(one, str):
                # Empty where there is nothing to say, such as no flag.
                self.text(one or "-", f"values.{name}")
            elif isinstance(one, list):
                fine = len(one) <= _MAX_CURVE and all(map(_is_number, one))
                self.that(fine, f"values.{name}: is no list of numbers")
            else:
                self.that(one is None or _is_number(one), f"values.{name}: is no figure")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
