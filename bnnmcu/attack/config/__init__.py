"""What a campaign may be told, with its bounds; needs no torch.

One file for each family of attacks; all names are given here.
"""

from __future__ import annotations

from bnnmcu.attack.config.base import (
    CLEAN,
    Adversary,
    AttackConfig,
    Crafted,
    Estimator,
    EstimatorChoice,
    LabelRule,
    LossName,
    Needs,
    TargetRule,
    levels,
)
from bnnmcu.attack.config.blackbox import (
    Answers,
    BlackBoxConfig,
    HopSkipJumpConfig,
    SeedPolicy,
    SquareConfig,
    SubstituteConfig,
)
from bnnmcu.attack.config.campaign import CampaignConfig
from bnnmcu.attack.config.gradient import (
    ApgdConfig,
    FgsmConfig,
    GradientConfig,
    PgdConfig,
    PgdL2Config,
)
from bnnmcu.attack.config.minimal import CwConfig, JsmaConfig, SuccessRule
from bnnmcu.attack.config.presets import PRESETS

__all__ = [
    "CLEAN",
    "KINDS",
    "PRESETS",
    "Adversary",
    "Answers",
    "ApgdConfig",
    "AttackConfig",
    "BlackBoxConfig",
    "CampaignConfig",
    "Crafted",
    "CwConfig",
    "Estimator",
    "EstimatorChoice",
    "FgsmConfig",
    "GradientConfig",
    "HopSkipJumpConfig",
    "JsmaConfig",
    "LabelRule",
    "LossName",
    "Needs",
    "PgdConfig",
    "PgdL2Config",
    "SeedPolicy",
    "SquareConfig",
    "SubstituteConfig",
    "SuccessRule",
    "TargetRule",
    "levels",
]

#: Every attack there is, by its kind.
KINDS: dict[str, type[AttackConfig]] = {
    config.kind: config
    for config in (
        FgsmConfig,
        PgdConfig,
        PgdL2Config,
        ApgdConfig,
        CwConfig,
        JsmaConfig,
        SquareConfig,
        HopSkipJumpConfig,
        SubstituteConfig,
    )
}
