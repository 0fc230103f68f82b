"""The balls of bounded attacks: nothing leaves them, and rounding gives away next to nothing."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="crafting needs torch")

from bnnmcu.attack.balls import Ball, NormName, ball_of  # noqa: E402

SHAPE = (50, 7, 5, 2)


def ball(norm: NormName, radius: int) -> tuple[Ball, torch.Tensor, torch.Generator]:
    """A ball round images many of whose pixels are at the ends of the range."""
    generator = torch.Generator().manual_seed(radius)
    centre = torch.randint(-60, 316, SHAPE, generator=generator).clamp(0, 255).to(torch.int16)
    return ball_of(norm, centre, radius), centre, generator


def size(norm: NormName, change: torch.Tensor) -> torch.Tensor:
    """Norm of each image."""
    flat = change.double().flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.square().sum(1).sqrt()


@pytest.mark.parametrize("radius", [0, 1, 3, 76, 255, 2000])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_and_rounding_stay_inside(norm: NormName, radius: int) -> None:
    inside, centre, generator = ball(norm, radius)
    for spread in (0.3, 5.0, 300.0):
        away = centre + spread * torch.randn(SHAPE, generator=generator)
        near = inside.project(away)
        assert size(norm, near - centre).max() <= radius * (1 + 1e-6) + 1e-4
        assert near.min() >= 0
        assert near.max() <= 255
        # A point that is inside is its own projection, up to the last bits.
        torch.testing.assert_close(inside.project(near), near, rtol=0, atol=1e-3)
        whole = inside.round(away)
        assert whole.dtype == torch.int16
        change = (whole - centre).long()
        # In whole numbers, so that no last bit of a root decides.
        largest = (
            change.abs().flatten(1).amax(1) if norm == "linf" else change.square().flatten(1).sum(1)
        )
        assert int(largest.max()) <= (radius if norm == "linf" else radius**2)
        assert whole.min() >= 0
        assert whole.max() <= 255
        # No pixel is further than a level and the last bits from where it was.
        assert float((whole - near).abs().max()) < 1.01


@pytest.mark.parametrize("radius", [3, 40, 300])
def test_rounding_in_l2_moves_as_few_pixels_back_as_it_can(radius: int) -> None:
    generator = torch.Generator().manual_seed(radius)
    centre = torch.full(SHAPE, 128.0)
    inside = ball_of("l2", centre, radius)
    near = inside.project(centre + 100.0 * torch.randn(SHAPE, generator=generator))
    change = (near - centre).double().flatten(1)
    plain = change.round()
    whole = (inside.round(near) - centre).double().flatten(1)
    back = plain.abs() - whole.abs()
    assert set(back.unique().tolist()) == {0.0, 1.0}
    outwards = plain.abs() - change.abs()
    for image in range(len(back)):
        chosen = back[image] > 0
        before, after = (one[image].square().sum() for one in (plain, whole))
        assert bool(chosen.any()) == bool(before > radius**2)
        if chosen.any():
            # Those that rounding had moved outwards the most, and not one too many.
            last = outwards[image][chosen].argmin()
            saved = (2 * plain[image].abs() - 1)[chosen][last]
            assert outwards[image][chosen].min() >= outwards[image][~chosen].max() - 1e-3
            assert after + saved > radius**2 - 1e-3


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_starts_are_random_and_on_the_surface(norm: NormName) -> None:
    middle = torch.full(SHAPE, 128, dtype=torch.int16)
    inside = ball_of(norm, middle, 40)
    generator = torch.Generator().manual_seed(1)
    one, two = inside.start(generator), inside.start(generator)
    assert not torch.equal(one, two)
    torch.testing.assert_close(
        size(norm, one - middle), torch.full((50,), 40.0, dtype=torch.float64), rtol=1e-5, atol=0
    )
    # No corner is preferred.
    assert abs(float((one - middle).mean())) < 4


def test_directions_ascend_with_norm_one() -> None:
    generator = torch.Generator().manual_seed(1)
    # Of very different sizes: squares of the least underflow in float32.
    scale = torch.logspace(-30, 30, 50).view(-1, 1, 1, 1)
    gradient = torch.randn(SHAPE, generator=generator) * scale
    gradient[7] = 0.0
    for norm in ("linf", "l2"):
        direction = ball_of(norm, torch.zeros(SHAPE), 5).direction(gradient)
        assert torch.isfinite(direction).all()
        wanted = torch.ones(50, dtype=torch.float64)
        wanted[7] = 0.0
        torch.testing.assert_close(size(norm, direction), wanted, rtol=1e-5, atol=0)
        assert (direction * gradient >= 0).all()
