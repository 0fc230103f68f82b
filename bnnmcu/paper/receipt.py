"""What a model file of the cache does not tell about its training: a small JSON file beside it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bnnmcu.errors import ModelFileError
from bnnmcu.modelfile import atomic_write

__all__ = ["Receipt"]

_FORMAT, _VERSION = "bnnmcu-trained", 1
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_MAX_BYTES = 4096


@dataclass(frozen=True)
class Receipt:
    """Of one training.

    Attributes:
        digest: :meth:`bnnmcu.paper.recipes.Trainable.digest`.
        model_sha256: of the model file; empty while there is none.
        seconds: core-seconds of the training (on a GPU: by the clock), if known.
        device: ``cpu`` or ``cuda``, if known.
        adopted: whether the model was trained elsewhere.
    """

    digest: str
    model_sha256: str
    seconds: float | None
    device: str | None
    adopted: bool

    def signed(self, model_sha256: str) -> Receipt:
        """The same, of this model file."""
        return replace(self, model_sha256=model_sha256)

    def write(self, path: Path) -> None:
        """Write it, whole or not at all.

        Raises:
            OSError: the disk refuses.
        """
        entries = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        atomic_write(path, f"{json.dumps(entries, indent=1, sort_keys=True)}\n".encode())

    @classmethod
    def read(cls, path: Path, digest: str) -> Receipt | None:
        """The receipt of the training with this digest; None if there is no file.

        Raises:
            ModelFileError: the file is not such a receipt, or of another training.
        """
        try:
            with path.open("rb") as stream:
                raw = stream.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ModelFileError(f"cannot be read: {error.strerror}", where=str(path)) from error
        try:
            entries = json.loads(raw) if len(raw) <= _MAX_BYTES else None
        except (ValueError, RecursionError):
            entries = None
        receipt = _checked(entries)
        if receipt is None or receipt.digest != digest:
            raise ModelFileError(
                "is not the receipt of this training",
                where=str(path),
                hint="remove it; the model file stays, its seconds will be unknown",
            )
        return receipt


def _checked(entries: Any) -> Receipt | None:
    """The receipt, if every entry is what it must be."""
    if not isinstance(entries, dict):
        return None
    given = dict(entries)
    if (given.pop("format", None), given.pop("version", None)) != (_FORMAT, _VERSION):
        return None
    try:
        receipt = Receipt(**given)
    except TypeError:
        return None
    seconds = receipt.seconds
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | None):
        return None
    if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
        return None
    hashes = (receipt.digest, receipt.model_sha256)
    if not all(isinstance(value, str) and _HEX.match(value) for value in hashes):
        return None
    if receipt.device not in ("cpu", "cuda", None) or not isinstance(receipt.adopted, bool):
        return None
    return receipt
