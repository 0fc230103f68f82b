"""The balls that bounded attacks stay in: starts, steps, projections, and the pixel grid.

Everything is in pixel levels: an image is float32 of 0 .. 255, and a radius of
r levels is r / 255 on the scale of a network's input.  Rounding comes last and
never leaves the ball: its radius is a whole number of levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

__all__ = ["Ball", "L2Ball", "LinfBall", "NormName", "ball_of"]

#: Norms of a budget.
NormName = Literal["linf", "l2"]

# No image is that close to its centre unless it is the centre.
_TINY = 1e-12


def _per_image(values: Tensor) -> Tensor:
    """One value (N,) an image, shaped to meet images (N, H, W, C)."""
    return values.view(-1, 1, 1, 1)


def _length(change: Tensor) -> Tensor:
    """L2 norm of each image, (N, 1, 1, 1)."""
    return _per_image(change.flatten(1).norm(dim=1))


class Ball(Protocol):
    """All images within a radius of their own centre, cut by the pixels' range.

    Images are float32 pixel levels, shape (N, H, W, C), as is a gradient.
    """

    @property
    def radius(self) -> int:
        """In pixel levels."""

    def start(self, generator: torch.Generator) -> Tensor:
        """A random point for each image, on the ball's surface where the range allows it."""

    def direction(self, gradient: Tensor) -> Tensor:
        """Steepest ascent with steps of norm 1; zero where the gradient is."""

    def project(self, images: Tensor) -> Tensor:
        """The points of the ball nearest to these (its cut by the range comes second)."""

    def round(self, images: Tensor) -> Tensor:
        """Points of the ball that a board can be sent: whole levels, int16."""


@dataclass(frozen=True, eq=False)
class LinfBall:
    """No pixel changes by more than ``radius`` levels."""

    centre: Tensor
    radius: int

    def start(self, generator: torch.Generator) -> Tensor:
        """As published with AutoPGD: uniform, stretched until one pixel uses the budget up."""
        uniform = 2.0 * torch.rand(self.centre.shape, generator=generator) - 1.0
        largest = _per_image(uniform.flatten(1).abs().amax(1)).clamp_min(_TINY)
        return self.project(self.centre + (self.radius * uniform / largest).to(self.centre.device))

    def direction(self, gradient: Tensor) -> Tensor:
        """The gradient's signs."""
        return gradient.sign()

    def project(self, images: Tensor) -> Tensor:
        """Every pixel by itself."""
        near = torch.minimum(
            torch.maximum(images, self.centre - self.radius), self.centre + self.radius
        )
        return near.clamp(0.0, 255.0)

    def round(self, images: Tensor) -> Tensor:
        """The nearest levels: between two whole bounds they cannot leave the ball."""
        return self.project(images).round().to(torch.int16)


@dataclass(frozen=True, eq=False)
class L2Ball:
    """The Euclidean norm of an image's change is at most ``radius`` levels."""

    centre: Tensor
    radius: int

    def start(self, generator: torch.Generator) -> Tensor:
        """A normal direction, the whole radius long."""
        normal = torch.randn(self.centre.shape, generator=generator)
        change = self.radius * normal / _length(normal).clamp_min(_TINY)
        return self.project(self.centre + change.to(self.centre.device))

    def direction(self, gradient: Tensor) -> Tensor:
        """The gradient, of length 1."""
        # Of the largest value first: squares of tiny gradients underflow to zero.
        largest = _per_image(gradient.flatten(1).abs().amax(1))
        scaled = torch.where(largest > 0, gradient / largest, gradient)
        length = _length(scaled)
        return torch.where(length > 0, scaled / length, scaled)

    def project(self, images: Tensor) -> Tensor:
        """Along the line to the centre.

        The range is cut afterwards: the centre lies in it, so no change grows.
        """
        change = images - self.centre
        factor = (self.radius / _length(change).clamp_min(_TINY)).clamp_max(1.0)
        return (self.centre + factor * change).clamp(0.0, 255.0)

    def round(self, images: Tensor) -> Tensor:
        """The nearest levels, then as few pixels one level back as the budget asks for.

        Those that rounding had moved the furthest outwards are moved back first.
        All of them moved back would be cut off towards the centre, which is never
        longer than the unrounded change: some number of them is always enough.
        """
        change = (self.project(images) - self.centre).flatten(1).double()
        whole = change.round()
        outwards = whole.abs() - change.abs()
        order = outwards.argsort(dim=1, descending=True, stable=True)
        # One level back takes d**2 - (d - 1)**2 off the squared norm.
        saved = (2.0 * whole.abs() - 1.0).gather(1, order).clamp_min(0.0).cumsum(1)
        excess = whole.square().sum(1, keepdim=True) - float(self.radius) ** 2
        needed = (saved < excess).sum(1, keepdim=True) + (excess > 0)
        places = torch.arange(order.shape[1], device=order.device).expand_as(order)
        back = torch.zeros_like(whole).scatter(1, order, (places < needed).double())
        whole = whole.sign() * (whole.abs() - back).clamp_min(0.0)
        return (self.centre + whole.view_as(self.centre)).to(torch.int16)


def ball_of(norm: NormName, centre: Tensor, radius: int) -> Ball:
    """The ball of a norm round ``centre``, pixel levels (N, H, W, C) of any type."""
    kind = LinfBall if norm == "linf" else L2Ball
    return kind(centre.to(torch.float32), radius)
