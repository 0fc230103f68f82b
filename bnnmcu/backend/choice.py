"""What a kernel is chosen for, and the choice among those that could compute a step.

The choice never changes what is computed: every kernel of a site gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from bnnmcu.backend.costs import Estimate, knows, reserve
from bnnmcu.backend.kernels.base import Option
from bnnmcu.errors import UnsupportedModelError, UsageError

__all__ = [
    "CONSTANCIES",
    "DEFAULT_CHOICE",
    "GOALS",
    "Alternative",
    "Goal",
    "KernelChoice",
    "allowed",
    "arena_limit",
    "best",
    "fitted_in_flash",
    "fitting",
    "is_for",
    "weakest",
]

Goal = Literal["speed", "balanced", "size", "plain"]
Constancy = Literal["count", "time"]
Promise = Literal["none", "count", "time"]
GOALS: tuple[str, ...] = get_args(Goal)
CONSTANCIES: tuple[str, ...] = get_args(Constancy)

#: Cycles that a byte of flash or of RAM is worth.
_BYTE_WORTH = {"speed": 0.0, "balanced": 8.0, "size": 400.0, "plain": 0.0}
_STRENGTH: dict[Promise, int] = {"none": 0, "count": 1, "time": 2}


@dataclass(frozen=True)
class KernelChoice:
    """How kernels are chosen.

    Attributes:
        optimize: ``speed`` takes the fewest cycles, ``size`` the fewest bytes, and
            ``balanced`` gives up bytes only for cycles that are worth them.  ``plain`` takes
            the kernels that every core has and every other is judged by.
        constant: what must not depend on the input: the number of instructions
            (``count``), or branches and addresses too (``time``).  Kernels declare it, and
            traces of emulated boards test it.  A kernel that is forced is taken with
            whatever it promises, so that the plan may promise less.
        flash, ram: bytes of the board, to be fitted where possible; None: any number.
        core: whose costs count, as boards name it.
        force: name of a step, or ``*`` for all of them, to the option that it must take, as
            family (``classes``) or with its variant (``classes/5``).  ``*`` leaves the steps
            that have no such option alone.  For tests and measurements.
    """

    optimize: Goal = "balanced"
    constant: Constancy = "count"
    flash: int | None = None
    ram: int | None = None
    core: str = "cortex-m4f"
    force: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for what, value, known in (
            ("optimize", self.optimize, GOALS),
            ("constant", self.constant, CONSTANCIES),
        ):
            if value not in known:
                raise UsageError(
                    f"{value!r} is none of {', '.join(known)}", where=f"KernelChoice.{what}"
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> KernelChoice:
        """What :meth:`to_dict` gave.

        Raises:
            TypeError: it has other fields.
            UsageError: a value is unknown.
        """
        known = {f.name for f in fields(cls)}
        if set(values) != known:
            raise TypeError(f"a choice of kernels has the fields {', '.join(sorted(known))}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """For manifests."""
        return {
            "optimize": self.optimize,
            "constant": self.constant,
            "flash": self.flash,
            "ram": self.ram,
            "core": self.core,
            "force": dict(self.force),
        }


#: Of callers that say nothing.
DEFAULT_CHOICE = KernelChoice(optimize="plain")


@dataclass(frozen=True, eq=False)
class Alternative:
    """An option of a step with what it costs.

    Attributes:
        option: name, kernel and work.
        estimate: its costs.
    """

    option: Option
    estimate: Estimate

    @property
    def name(self) -> str:
        """The option's name."""
        return self.option.name


def weakest(options: Iterable[Option]) -> Promise:
    """What several kernels promise together."""
    return min((option.constant for option in options), key=_STRENGTH.__getitem__)


def is_for(option: Option, choice: KernelChoice) -> bool:
    """Whether the core has the kernel, or the choice forces it all the same."""
    return knows(option.family, choice.core) or bool(
        {option.name, option.family} & set(choice.force.values())
    )


def _forced(name: str, options: Sequence[Alternative], choice: KernelChoice) -> list[Alternative]:
    wanted = choice.force.get(name, choice.force.get("*"))
    if wanted is None:
        return []
    found = [a for a in options if wanted in (a.option.name, a.option.family)]
    if not found and name in choice.force:
        raise UsageError(
            f"{name} has no kernel {wanted!r}",
            where="KernelChoice.force",
            hint=f"it has {', '.join(a.name for a in options)}",
        )
    return found


def allowed(
    name: str, options: Sequence[Alternative], choice: KernelChoice
) -> tuple[Alternative, ...]:
    """The options of a step that a choice may take; never none.

    Raises:
        UsageError: the step is forced to an option that it does not have.
        UnsupportedModelError: none of them promises what the choice asks for.
    """
    forced = _forced(name, options, choice)
    if forced:
        return tuple(forced)
    # The plain kernel is the first.
    offered = options[:1] if choice.optimize == "plain" else options
    least = _STRENGTH[choice.constant]
    kept = tuple(a for a in offered if _STRENGTH[a.option.constant] >= least)
    if not kept:
        promises = ", ".join(f"{a.name} ({a.option.constant})" for a in offered)
        raise UnsupportedModelError(
            f"no kernel promises constant {choice.constant}: there is {promises}",
            where=name,
            hint="--constant-count asks for less"
            if choice.constant == "time"
            else "force a kernel in KernelChoice to do without the promise",
        )
    return kept


def _price(a: Alternative, choice: KernelChoice) -> float:
    worth = _BYTE_WORTH[choice.optimize]
    return a.estimate.cycles + worth * (a.estimate.flash + 4 * a.estimate.words)


def best(options: Sequence[Alternative], choice: KernelChoice) -> Alternative:
    """The cheapest for a choice's purpose; the first of equal ones."""
    return min(options, key=lambda a: _price(a, choice))


def _exchange(
    chosen: Sequence[Alternative], options: Sequence[Sequence[Alternative]]
) -> tuple[int, Alternative] | None:
    """The change that costs the fewest cycles a byte of flash saved; None if none saves any."""
    found: list[tuple[float, int, Alternative]] = []
    for i, (now, others) in enumerate(zip(chosen, options, strict=True)):
        for other in others:
            saved = now.estimate.flash - other.estimate.flash
            if saved > 0:
                found.append(((other.estimate.cycles - now.estimate.cycles) / saved, i, other))
    if not found:
        return None
    _, i, other = min(found, key=lambda row: (row[0], row[1]))
    return i, other


def fitted_in_flash(
    options: Sequence[Sequence[Alternative]], choice: KernelChoice
) -> list[Alternative]:
    """The best of each step, and cheaper ones until the flash suffices, if it can."""
    chosen = [best(alternatives, choice) for alternatives in options]
    while choice.flash is not None:
        used = reserve(choice.core).flash + sum(a.estimate.flash for a in chosen)
        change = _exchange(chosen, options) if used > choice.flash else None
        if change is None:
            break
        # Each change takes fewer bytes, so this ends.
        chosen[change[0]] = change[1]
    return chosen


def arena_limit(choice: KernelChoice) -> int | None:
    """Words that the arena may take; None: any number."""
    return None if choice.ram is None else max(0, choice.ram - reserve(choice.core).ram) // 4


def fitting(options: Sequence[Alternative], scratch_words: int) -> Sequence[Alternative]:
    """The options with at most so much scratch; those with the least if none has so little."""
    least = min(a.option.kernel.scratch_words for a in options)
    most = max(least, scratch_words)
    return [a for a in options if a.option.kernel.scratch_words <= most]
