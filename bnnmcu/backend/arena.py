"""Places buffers with overlapping lifetimes in one static arena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Buffer", "Request", "place"]


@dataclass(frozen=True)
class Request:
    """A buffer that is needed from step ``first`` to step ``last``, both included."""

    name: str
    words: int
    first: int
    last: int


@dataclass(frozen=True)
class Buffer:
    """A buffer with its place, both in 32-bit words."""

    name: str
    offset: int
    words: int


def place(requests: Sequence[Request]) -> tuple[dict[str, Buffer], int]:
    """Give every buffer an offset such that buffers alive at the same time are disjoint.

    Largest first, each at the lowest offset that is free during its life;
    ties are broken by order, so that the result is reproducible.

    Returns:
        the buffers by name, and the words of the arena (at least one).
    """
    placed: list[tuple[Request, int]] = []
    order = sorted(range(len(requests)), key=lambda i: (-requests[i].words, i))
    for i in order:
        request = requests[i]
        taken = sorted(
            (offset, offset + other.words)
            for other, offset in placed
            if other.first <= request.last and request.first <= other.last
        )
        offset = 0
        for start, end in taken:
            if offset + request.words <= start:
                break
            offset = max(offset, end)
        placed.append((request, offset))
    buffers = {r.name: Buffer(r.name, offset, r.words) for r, offset in placed}
    return buffers, max([1, *(buffer.offset + buffer.words for buffer in buffers.values())])
