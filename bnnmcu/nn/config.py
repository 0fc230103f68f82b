"""Names and sizes of the paper's networks; needs no torch, so that exporting does not either."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from bnnmcu.errors import ModelFileError

__all__ = ["CLASSES", "INPUT_SHAPES", "KINDS", "STE", "Form", "PaperConfig"]

#: Straight-through estimators: see :mod:`bnnmcu.nn.functional`.
STE = Literal["identity", "clipped"]

#: How S's conv3 is trained and drawn: ``straight-through`` trains its real weights
#: (paper, section 3); ``frozen`` leaves them as they were initialised, as the
#: authors' published code does; ``shared-draw`` compares all filters with one drawn
#: plane of thresholds, which is cheaper and masks more (for study: no device has it).
Form = Literal["straight-through", "frozen", "shared-draw"]

KINDS = ("A", "B", "C", "S")
#: Input shape (H, W, C) of each data set.
INPUT_SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
CLASSES = 10
_MAX_FILTERS = 4096


@dataclass(frozen=True)
class PaperConfig:
    """Names one network of the paper's family.

    Attributes:
        kind: ``"A"``, ``"B"``, ``"C"`` or ``"S"``.
        filters: K, the filters of the first layer.
        dataset: ``"mnist"`` or ``"cifar10"``; fixes the input shape.
        ste: straight-through estimator of activations and weights.
        bn_momentum: weight of the newest batch in batch-norm statistics (the
            authors' 0.001 needs more epochs to settle).
        form: of S's stochastic layer; the other networks have only the default.
    """

    kind: str
    filters: int = 64
    dataset: str = "mnist"
    ste: STE = "clipped"
    bn_momentum: float = 0.01
    form: Form = "straight-through"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ModelFileError(f"unknown network {self.kind!r}; the paper has {', '.join(KINDS)}")
        if type(self.filters) is not int or not 1 <= self.filters <= _MAX_FILTERS:
            raise ModelFileError(f"filters must be 1 to {_MAX_FILTERS}, not {self.filters!r}")
        if self.dataset not in INPUT_SHAPES:
            raise ModelFileError(f"unknown data set {self.dataset!r}; use mnist or cifar10")
        if self.ste not in get_args(STE):
            raise ModelFileError(f"unknown estimator {self.ste!r}; use identity or clipped")
        if type(self.bn_momentum) is not float or not 0 < self.bn_momentum < 1:
            raise ModelFileError(f"batch-norm momentum {self.bn_momentum!r} is not within (0, 1)")
        if self.form not in get_args(Form):
            raise ModelFileError(f"unknown form {self.form!r}; use {', '.join(get_args(Form))}")
        if self.form != "straight-through" and self.kind != "S":
            raise ModelFileError(f"form {self.form!r} is one of S, not of {self.kind}")

    @property
    def name(self) -> str:
        """For instance ``S64``, ``S64-cifar10`` or ``S64-frozen``; by default it is MNIST."""
        suffix = "" if self.dataset == "mnist" else f"-{self.dataset}"
        form = "" if self.form == "straight-through" else f"-{self.form}"
        return f"{self.kind}{self.filters}{suffix}{form}"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return INPUT_SHAPES[self.dataset]

    @property
    def last_side(self) -> int:
        """Height and width of what conv3 gives: 1 for MNIST, 2 for CIFAR-10."""
        return ((self.input_shape[0] // 2 - 6) // 2 + 1) - 4

    def to_dict(self) -> dict[str, Any]:
        """As stored in a model file's manifest; the usual form is left out."""
        stored = asdict(self)
        if self.form == "straight-through":
            del stored["form"]
        return stored

    @classmethod
    def from_manifest(cls, manifest: dict[str, Any], where: str) -> PaperConfig:
        """The network a model file's manifest names.

        Raises:
            ModelFileError: it names none, or one that does not exist.
        """
        network = manifest.get("network")
        if manifest.get("architecture") != "paper" or not isinstance(network, dict):
            raise ModelFileError("the manifest names no network of the paper", where=where)
        try:
            return cls(**network)
        except TypeError as error:
            raise ModelFileError(f"manifest entry 'network': {error}", where=where) from error
        except ModelFileError as error:
            raise ModelFileError(error.what, where=where, hint=error.hint) from error
