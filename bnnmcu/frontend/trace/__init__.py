"""Live torch modules to float networks: any classes, if what they compute can be expressed.

Torch is imported when something is traced, not before.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from bnnmcu.errors import MissingDependencyError

if TYPE_CHECKING:
    from bnnmcu.frontend.trace.network import Trace
    from bnnmcu.network import Network

__all__ = ["trace", "trace_with_notes"]


def trace_with_notes(module: Any, example_input: Any, *, name: str | None = None,
                     mean: Any = 0.0, std: Any = 1.0) -> Trace:  # fmt: skip
    """As :func:`trace`; the result has the network and notes on what was left out."""
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError(
            "tracing a module needs torch", hint="pip install 'bnnmcu[train]'"
        )
    from bnnmcu.frontend.trace.network import trace_module

    return trace_module(module, example_input, name=name, mean=mean, std=std)


def trace(module: Any, example_input: Any, *, name: str | None = None,
          mean: Any = 0.0, std: Any = 1.0) -> Network:  # fmt: skip
    """What a trained module computes in eval mode, as a network.

    The module is not changed.  The trace is compared with it, on the example and
    on random images, before it is returned.

    Args:
        module: a ``torch.nn.Module`` on the CPU, in float32 or float64.
        example_input: float tensor, (1, C, H, W), (1, C, L) or (1, F), as in training.
        name: of the network; the class's name if None.
        mean, std: one number, or one per channel: a pixel p, 0 to 255, stands for
            (p / 255 - mean) / std in the module's input.

    Raises:
        UsageError: the module or the input is unsound, or the module itself fails.
        UnsupportedModelError: it computes what cannot be expressed, or its trace
            does not reproduce it; names the layer and the nearest rewrite.
        MissingDependencyError: torch is not installed.
    """
    return trace_with_notes(module, example_input, name=name, mean=mean, std=std).network
