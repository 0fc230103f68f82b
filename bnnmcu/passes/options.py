"""What a compilation may choose, and what it has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bnnmcu.errors import UsageError
from bnnmcu.graph import MAX_PLANES, MIN_PLANES
from bnnmcu.lfsr import GENERATORS
from bnnmcu.network.ops import Floats

__all__ = ["FirstLayer", "LayerError", "Note", "Quantization"]

FirstLayer = Literal["per-channel", "calibrated"]


@dataclass(frozen=True)
class Quantization:
    """What an export may choose.

    Attributes:
        first_layer_bits: width of the first layer's integer weights, 8 to 14.
        first_layer: ``per-channel`` scales each filter to its largest weight;
            ``calibrated`` clips it where that lowers the error on given images.
        hidden_bits: width of real weights behind the first layer, 8 to 14.
        planes: k, bit-planes of a stochastic layer's probabilities.
        generator: of the draws, a key of :data:`bnnmcu.lfsr.GENERATORS`.
        dead_channels: remove channels whose bits are constant.
    """

    first_layer_bits: int = 14
    planes: int = 4
    generator: str = "xorshift128"
    first_layer: FirstLayer = "per-channel"
    hidden_bits: int = 12
    dead_channels: bool = True

    def __post_init__(self) -> None:
        if not 8 <= self.first_layer_bits <= 14:
            raise UsageError(f"first layer of {self.first_layer_bits} bits; 8 to 14 are possible")
        if not 8 <= self.hidden_bits <= 14:
            raise UsageError(f"hidden weights of {self.hidden_bits} bits; 8 to 14 are possible")
        if self.first_layer not in get_args(FirstLayer):
            raise UsageError(
                f"first layer {self.first_layer!r}; use {' or '.join(get_args(FirstLayer))}"
            )
        if not MIN_PLANES <= self.planes <= MAX_PLANES:
            raise UsageError(
                f"{self.planes} bit-planes; {MIN_PLANES} to {MAX_PLANES} are possible",
                where="--planes",
            )
        if self.generator not in GENERATORS:
            raise UsageError(f"unknown generator {self.generator!r}", where="--generator")


@dataclass(frozen=True)
class Note:
    """Something the user should know: ``text`` about the layer ``where``."""

    where: str
    text: str


@dataclass(frozen=True)
class LayerError:
    """What quantising a layer's weights lost.

    Attributes:
        layer: its name.
        bits: width of the integers; 0 where the weights are exact.
        worst: largest error of a weight over the largest weight.
        rms: root mean square of the errors over that of the weights.
    """

    layer: str
    bits: int
    worst: float
    rms: float

    @classmethod
    def of(cls, layer: str, bits: int, weights: Floats, restored: Floats) -> LayerError:
        """Compare weights with what their integers stand for."""
        largest = float(abs(weights).max()) or 1.0
        # Relative at once: squares of float64 may leave it.
        relative, difference = weights / largest, (restored - weights) / largest
        size = float((relative**2).mean()) ** 0.5 or 1.0
        return cls(
            layer,
            bits,
            float(abs(difference).max()),
            float((difference**2).mean()) ** 0.5 / size,
        )
