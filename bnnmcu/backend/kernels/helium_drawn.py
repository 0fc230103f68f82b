"""Drawn sign convolutions with one output position, four filters at a time, for Helium."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from bnnmcu.backend.kernels.base import Kernel, Option, Site, table
from bnnmcu.backend.kernels.convs import binary
from bnnmcu.graph import StochasticConv
from bnnmcu.packing import words_for

__all__ = ["drawn", "jump"]

_WORD = (1 << 32) - 1
_STATE = 128
#: Parts of the filters that are drawn side by side.
_PARTS = 4


def _bits(count: int) -> list[int]:
    """The lowest bits of words of xorshift128."""
    state, bits = [1, 0, 0, 0], []
    for _ in range(count):
        bits.append(state[0] & 1)
        t = state[0] ^ (state[0] << 11) & _WORD
        state = [*state[1:], state[3] ^ (state[3] >> 19) ^ t ^ (t >> 8)]
    return bits


@cache
def _polynomial() -> int:
    """The characteristic polynomial of xorshift128, bit i for x^i: Berlekamp and Massey.

    Its period is 2^128 - 1, so that every sequence of its bits has this polynomial.
    """
    bits = _bits(2 * _STATE)
    current, previous, length, since = 1, 1, 0, 1
    for i, bit in enumerate(bits):
        wrong = bit
        for j in range(1, length + 1):
            wrong ^= (current >> j & 1) & bits[i - j]
        if not wrong:
            since += 1
            continue
        before = current
        current ^= previous << since
        if 2 * length <= i:
            length, previous, since = i + 1 - length, before, 1
        else:
            since += 1
    assert length == _STATE
    # Of the connection polynomial the reverse.
    return int(f"{current:0{_STATE + 1}b}"[::-1], 2)


def _product(a: int, b: int) -> int:
    """Modulo the characteristic polynomial."""
    product, modulus = 0, _polynomial()
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a >> _STATE:
            a ^= modulus
        b >>= 1
    return product


def jump(words: int) -> int:
    """x^words modulo the characteristic polynomial of xorshift128, bit i for x^i."""
    result, power = 1, 2
    while words:
        if words & 1:
            result = _product(result, power)
        power = _product(power, power)
        words >>= 1
    return result


def drawn(site: Site) -> Iterator[Option]:
    """One output position, no groups, nothing in the padding."""
    node = site.node
    assert isinstance(node, StochasticConv)
    if site.out.shape[:2] != (1, 1) or node.groups != 1:
        return
    outputs, kh, kw, inputs = node.weights.shape
    rows, cols = node.window.taps_inside(site.sources[0].shape, node.name)
    if (rows[0], cols[0]) != (kh, kw) or outputs < _PARTS:
        return
    size = kh * kw * words_for(inputs)
    plain = binary(site)
    polynomial = jump(outputs // _PARTS * size * node.planes)
    words = np.array([polynomial >> 32 * i & _WORD for i in range(4)], dtype=np.uint32)
    kernel = Kernel(
        **{
            **vars(plain),
            "function": "bnn_conv_drawn_vectors",
            "struct": "bnn_drawn_mve_t",
            "fields": {"conv": plain.fields, "jump": "jump"},
            "constants": (*plain.constants, table("jump", words)),
            "scratch_words": 5 * size + outputs,
            "header": "bnn_drawn_mve.h",
        }
    )
    total = float(outputs * size)
    work = {"call": 1.0, "word": total, "sum": float(outputs), "draw": total * node.planes}
    yield Option("drawn-vectors", kernel, work)
