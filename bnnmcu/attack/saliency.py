"""The best pair of pixels by the saliency map of JSMA (Papernot et al., 2016).

With a pixel's derivatives a (of the target's output) and b (of the sum of all
other outputs), the pair p, q scores ``-(a_p + a_q) * (b_p + b_q)`` if the first
sum is above zero and the second below, and nothing otherwise.  The paper asks
all pairs, 307,000 for 784 pixels.  Only few of them can win: where a pixel has
a no larger a and a no smaller b than two others, one of these can stand in for
it in every pair, and the pair scores no less.  The others are compared in
pairs, all of them, in pieces that fit into memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["best_pairs"]

#: Pairs compared at once; a few tensors of 8 MiB each, which caches like.
_PAIRS_AT_ONCE = 1 << 20


def _candidates(target: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels that may be of the best pair: indices in rows, int64 (N, P), and how many (N,).

    Only so many of each row's first entries mean anything.
    """
    order = target.argsort(dim=1, descending=True, stable=True)
    sums = others.gather(1, order)
    # Among the pixels with a larger a: the smallest b, and the second smallest.
    first = torch.full_like(sums, torch.inf)
    first[:, 1:] = sums.cummin(1).values[:, :-1]
    second = torch.full_like(sums, torch.inf)
    second[:, 1:] = torch.maximum(first, sums).cummin(1).values[:, :-1]
    # Never of a pixel that may not change: its b is infinite.
    kept = sums < second
    places = (~kept).to(torch.int8).argsort(dim=1, stable=True)
    return order.gather(1, places), kept.sum(1)


def _compare(target: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The best of all pairs of K candidates: index ``p * K + q``, p < q, and score, (N,)."""
    alpha = (target[:, :, None] + target[:, None, :]).clamp_min_(0.0)
    beta = (others[:, :, None] + others[:, None, :]).clamp_max_(0.0)
    score = alpha.mul_(beta).neg_()
    score.diagonal(dim1=1, dim2=2).zero_()
    value, place = score.flatten(1).max(1)
    return place, value


def best_pairs(target: Tensor, others: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """For each of N images the pair of pixels with the highest score.

    Args:
        target: float64, shape (N, P): finite derivatives of the target's output.
        others: float64, shape (N, P): of the sum of all other outputs.
        allowed: bool, shape (N, P): pixels that may still change.

    Returns:
        the pairs, int64 (N, 2), and whether there was one with a score above
        zero, bool (N,): without one, the pair means nothing.
    """
    target = target.masked_fill(~allowed, -torch.inf)
    others = others.masked_fill(~allowed, torch.inf)
    places, counts = _candidates(target, others)
    pairs = torch.zeros(len(target), 2, dtype=torch.int64, device=target.device)
    scores = torch.zeros(len(target), dtype=target.dtype, device=target.device)
    # Images with about as many candidates go together, so that few rows are filled up.
    order = counts.argsort(stable=True)
    sizes = counts[order].tolist()
    begin = 0
    while begin < len(sizes):
        end = begin + 1
        while end < len(sizes) and (end + 1 - begin) * sizes[end] ** 2 <= _PAIRS_AT_ONCE:
            end += 1
        which, width = order[begin:end], sizes[end - 1]
        begin = end
        if width < 2:
            continue
        here = places[which, :width]
        filled = torch.arange(width, device=here.device) >= counts[which, None]
        # Zero scores: what fills a row up would have to gain from a loss.
        one = target[which].gather(1, here).masked_fill(filled, -torch.inf)
        rest = others[which].gather(1, here).masked_fill(filled, torch.inf)
        place, scores[which] = _compare(one, rest)
        both = torch.stack([place // width, place % width], 1)
        pairs[which] = here.gather(1, both)
    return pairs, scores > 0
