"""What a device calls its layers, and C their tables."""

from __future__ import annotations

from collections.abc import Sequence

from bnnmcu.backend.kernels.base import Constant, Kernel

__all__ = ["Tables", "short_labels"]

#: Bytes of a step's name on the wire: BNN_TEXT_MAX of bnn_protocol.h.
_LABEL = 31


def short_labels(names: Sequence[str]) -> list[str]:
    """Names of at most 31 bytes, all different; the end of a long one says the most."""
    labels: list[str] = []
    taken = {name for name in names if len(name) <= _LABEL}
    for name in names:
        label, count = name, 0
        while len(label) > _LABEL or (label != name and label in taken):
            mark = f"~{count}~" if count else "~"
            label = mark + name[len(mark) - _LABEL :]
            count += 1
        taken.add(label)
        labels.append(label)
    return labels


class Tables:
    """Names the tables; equal ones get one place."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], str] = {}

    def of(self, index: int, kernel: Kernel) -> tuple[Constant, ...]:
        """The tables of a step."""
        named = []
        for constant in kernel.constants:
            key = (constant.c_type, constant.data.tobytes())
            own = f"bnn_layer{index}_{constant.role}"
            symbol = self._known.setdefault(key, own)
            named.append(constant.named(symbol, shared=symbol != own))
        return tuple(named)
