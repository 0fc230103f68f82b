"""Where the executions of one network part: torch module, float network, integers, C, board."""

from bnnmcu.compare.report import Diff, LayerDiff, Parting, Stage
from bnnmcu.compare.run import diff

__all__ = ["Diff", "LayerDiff", "Parting", "Stage", "diff"]
