"""A campaign: clean images and a list of attacks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bnnmcu.attack.config.base import AttackConfig, within
from bnnmcu.errors import UsageError

__all__ = ["CampaignConfig"]


@dataclass(frozen=True)
class CampaignConfig:
    """A clean evaluation and a list of attacks.

    Attributes:
        attacks: crafted and evaluated in this order.
        draws: with which every image is evaluated, each with a seed of its own;
            odd, since ties go to the attacker.
        seed: everything random derives from it.
        chunk: images crafted together; part of what makes a result reproducible.
    """

    attacks: tuple[AttackConfig, ...]
    draws: int = 21
    seed: int = 1
    chunk: int = 25

    def __post_init__(self) -> None:
        within("draws", self.draws, 1, 1000)
        within("seed", self.seed, 0, 2**63 - 1)
        within("chunk", self.chunk, 1, 10_000)
        cases = [(attack.case, attack.levels) for attack in self.attacks]
        for case, levels in cases:
            if cases.count((case, levels)) > 1:
                raise UsageError(
                    f"{case} is listed twice with the same budget in pixel levels",
                    hint="give one of them a name of its own",
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what must agree when a run is resumed.

        Each attack says its kind as ``attack``, its case and its levels besides
        its own fields.
        """
        attacks = [
            {"attack": attack.kind, "case": attack.case, "levels": attack.levels, **asdict(attack)}
            for attack in self.attacks
        ]
        return {**asdict(self), "attacks": attacks}
