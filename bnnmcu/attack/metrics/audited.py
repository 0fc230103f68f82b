"""What an independent look at stored successes found (:mod:`bnnmcu.attack.audit`)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Audit", "Mismatch"]


@dataclass(frozen=True)
class Mismatch:
    """One stored example that does not hold.

    Attributes:
        attack, levels: the case.
        image, target: the example.
        what: is wrong with it, in words.
    """

    attack: str
    levels: int
    image: int
    target: int | None
    what: str

    @property
    def place(self) -> str:
        """The example, in words."""
        to = "" if self.target is None else f" to class {self.target}"
        return f"{self.attack}, image {self.image}{to}"


@dataclass(frozen=True)
class Audit:
    """The whole look.

    Attributes:
        changes: examples whose change was held against budget, norms and clean image.
        successes: examples of attacks that are not right by majority.
        recomputed: successes all of whose draws were computed again.
        unseeded: successes whose seeds only the device knows.
        judge: what computed them again; empty if nothing did.
        mismatches: examples that do not hold, one entry each, the first ones.
        wrong: how many there are.
    """

    changes: int
    successes: int
    recomputed: int
    unseeded: int
    judge: str
    mismatches: tuple[Mismatch, ...]
    wrong: int
