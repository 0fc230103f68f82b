"""Places buffers with overlapping lifetimes in one static arena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Placed", "Request", "place"]


@dataclass(frozen=True)
class Request:
    """A buffer that is needed from step ``first`` to step ``last``, both included."""

    name: str
    words: int
    first: int
    last: int


@dataclass(frozen=True)
class Placed:
    """A buffer with its place; offset and size in 32-bit words, life as in :class:`Request`."""

    name: str
    offset: int
    words: int
    first: int
    last: int

    def alive(self, step: int) -> bool:
        """Whether it is in use while a step runs."""
        return self.first <= step <= self.last


def place(requests: Sequence[Request]) -> tuple[dict[str, Placed], int]:
    """Give every buffer an offset such that buffers alive at the same time are disjoint.

    Largest first, each at the lowest offset that is free during its life;
    ties are broken by order, so that the result is reproducible.

    Returns:
        the buffers by name, in the order of the requests, and the words of the
        arena (at least one).
    """
    placed: list[tuple[Request, int]] = []
    order = sorted(range(len(requests)), key=lambda i: (-requests[i].words, i))
    offsets: dict[int, int] = {}
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
        offsets[i] = offset
    buffers = {
        r.name: Placed(r.name, offsets[i], r.words, r.first, r.last) for i, r in enumerate(requests)
    }
    return buffers, max([1, *(buffer.offset + buffer.words for buffer in buffers.values())])
