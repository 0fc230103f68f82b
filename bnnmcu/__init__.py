"""bnnmcu: trained binarized networks to bit-packed C for Cortex-M, attacked on the board.

    import bnnmcu

    bnnmcu.export(module, example_input, board="nucleo_f446re", output="net")

takes a live ``torch.nn.Module`` to a firmware project; see :mod:`bnnmcu.api`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnnmcu.api import Exported, KernelChoice, export, save, trace
    from bnnmcu.compare import diff

__all__ = ["Exported", "KernelChoice", "__version__", "diff", "export", "save", "trace"]

__version__ = "0.1.0"
_API = dict.fromkeys(("Exported", "KernelChoice", "export", "save", "trace"), "bnnmcu.api")
_API["diff"] = "bnnmcu.compare"


def __getattr__(name: str) -> Any:
    # Importing bnnmcu stays light: the compiler is loaded when it is first asked for.
    if name in _API:
        return getattr(importlib.import_module(_API[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
