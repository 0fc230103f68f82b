"""Settings with a name: each is called with the fields that shall differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bnnmcu.attack.config.base import AttackConfig
from bnnmcu.attack.config.blackbox import HopSkipJumpConfig, SquareConfig, SubstituteConfig
from bnnmcu.attack.config.gradient import ApgdConfig, FgsmConfig, PgdConfig
from bnnmcu.attack.config.minimal import CwConfig, JsmaConfig
from bnnmcu.errors import UsageError

__all__ = ["PRESETS"]


def _named(
    name: str, make: Callable[..., AttackConfig], **fixed: Any
) -> tuple[str, Callable[..., AttackConfig]]:
    def preset(**changed: Any) -> AttackConfig:
        for one, several in (("loss", "losses"), ("temperature", "temperatures")):
            if one in changed and several in fixed and several not in changed:
                raise UsageError(
                    f"{name} tries several {several} of its own, so {one!r} would mean nothing",
                    hint=f"give {several!r}, or take the attack by its kind",
                )
        return make(**{"name": name} | fixed | changed)

    return name, preset


#: Of Galloway et al. (2018): one draw a step, straight-through gradients, and
#: steps of 0.01, which is 2.55 pixel levels, as 3.
_PAPER: dict[str, Any] = {"adversary": "paper", "estimator": "identity"}
#: Croce & Hein (2020), version ``rand``: both losses, 20 draws a step.
_RAND: dict[str, Any] = {"eot_draws": 20, "steps": 100}

#: By name; an attack made by one of them bears that name, unless given another.
PRESETS: dict[str, Callable[..., AttackConfig]] = dict(
    (
        _named("fgsm-paper", FgsmConfig, **_PAPER),
        _named("pgd-paper", PgdConfig, **_PAPER, step_levels=3, steps=40),
        _named("cw-paper", CwConfig.paper),
        _named("cw-adaptive", CwConfig.adaptive),
        _named("jsma-paper", JsmaConfig, **_PAPER, output="logits"),
        _named("autoattack-rand", ApgdConfig, **_RAND, losses=("ce", "dlr")),
        _named("autoattack-rand-ce", ApgdConfig, **_RAND, loss="ce"),
        _named("autoattack-rand-dlr", ApgdConfig, **_RAND, loss="dlr"),
        _named("square-paper", SquareConfig, epsilon=0.3, recheck=0, confirm=0),
        _named("hopskipjump-paper", HopSkipJumpConfig, probe=0.01),
        _named(
            "hopskipjump-votes",
            HopSkipJumpConfig,
            votes=3,
            first_batch=40,
            confirm=4,
            overshoot=2.0,
        ),
        _named(
            "substitute-paper",
            SubstituteConfig,
            epsilon=0.3,
            variant="as-published",
            label="prediction",
        ),
    )
)
