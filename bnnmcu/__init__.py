"""bnnmcu: trained binarized networks to bit-packed C for Cortex-M, attacked on the board."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
