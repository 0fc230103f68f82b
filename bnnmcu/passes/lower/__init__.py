"""Quantisation: one file for each kind of operation, and what they share."""

from bnnmcu.passes.lower.builder import Tap
from bnnmcu.passes.lower.network import lower_network

__all__ = ["Tap", "lower_network"]
