"""From a float network to an integer graph, one small pass at a time."""

from bnnmcu.passes.driver import PASSES, Lowering, Snapshot, lower
from bnnmcu.passes.lower import Tap
from bnnmcu.passes.options import FirstLayer, LayerError, Note, Quantization

__all__ = [
    "PASSES",
    "FirstLayer",
    "LayerError",
    "Lowering",
    "Note",
    "Quantization",
    "Snapshot",
    "Tap",
    "lower",
]
