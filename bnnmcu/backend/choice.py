"""What a kernel is chosen for, and the choice among those that could compute a step.

The choice never changes what is computed: every kernel of a site gives the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from bnnmcu.backend.costs import Estimate, reserve
from bnnmcu.backend.kernels.base import Option
from bnnmcu.errors import UsageError

__all__ = [
    "CONSTANCIES",
    "DEFAULT_CHOICE",
    "GOALS",
    "Alternative",
    "Goal",
    "KernelChoice",
    "allowed",
    "best",
    "cheaper_in_flash",
    "cheaper_in_ram",
]

Goal = Literal["speed", "balanced", "size", "plain"]
Constancy = Literal["count", "time"]
GOALS: tuple[str, ...] = get_args(Goal)
CONSTANCIES: tuple[str, ...] = get_args(Constancy)

#: Cycles that a byte of flash or of RAM is worth.
_BYTE_WORTH = {"speed": 0.0, "balanced": 8.0, "size": 400.0, "plain": 0.0}
_STRENGTH = {"none": 0, "count": 1, "time": 2}


@dataclass(frozen=True)
class KernelChoice:
    """How kernels are chosen.

    Attributes:
        optimize: ``speed`` takes the fewest cycles, ``size`` the fewest bytes, and
            ``balanced`` gives up bytes only for cycles that are worth them.  ``plain`` takes
            the kernels that every core has and every other is judged by.
        constant: what must not depend on the input: the number of instructions
            (``count``), or branches and addresses too (``time``).  Kernels declare it; the
            fast ones are tested, the plain ones are not yet.
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
    """
    forced = _forced(name, options, choice)
    if forced:
        return tuple(forced)
    if choice.optimize == "plain":
        return tuple(options[:1])
    least = _STRENGTH[choice.constant]
    kept = [a for a in options if _STRENGTH[a.option.constant] >= least]
    # The plain kernel is the first, and there for every site.
    return tuple(kept or options[:1])


def _price(a: Alternative, choice: KernelChoice) -> float:
    worth = _BYTE_WORTH[choice.optimize]
    return a.estimate.cycles + worth * (a.estimate.flash + 4 * a.estimate.words)


def best(options: Sequence[Alternative], choice: KernelChoice) -> Alternative:
    """The cheapest for a choice's purpose; the first of equal ones."""
    return min(options, key=lambda a: _price(a, choice))


def _exchange(
    chosen: Sequence[Alternative],
    options: Sequence[Sequence[Alternative]],
    size: Mapping[int, Mapping[str, int]],
) -> tuple[int, Alternative] | None:
    """The change that costs the fewest cycles a byte saved; None if none saves any."""
    found: list[tuple[float, int, Alternative]] = []
    for i, (now, others) in enumerate(zip(chosen, options, strict=True)):
        for other in others:
            saved = size[i][now.name] - size[i][other.name] if i in size else 0
            if saved > 0:
                found.append(((other.estimate.cycles - now.estimate.cycles) / saved, i, other))
    if not found:
        return None
    _, i, other = min(found, key=lambda row: (row[0], row[1]))
    return i, other


def cheaper_in_flash(
    chosen: Sequence[Alternative], options: Sequence[Sequence[Alternative]], choice: KernelChoice
) -> tuple[int, Alternative] | None:
    """The step to change, and to what, if the flash does not suffice; else None."""
    used = reserve(choice.core).flash + sum(a.estimate.flash for a in chosen)
    if choice.flash is None or used <= choice.flash:
        return None
    sizes = {i: {a.name: a.estimate.flash for a in others} for i, others in enumerate(options)}
    return _exchange(chosen, options, sizes)


def cheaper_in_ram(
    chosen: Sequence[Alternative],
    options: Sequence[Sequence[Alternative]],
    arena_words: int,
    peak: Sequence[int],
    choice: KernelChoice,
) -> tuple[int, Alternative] | None:
    """The same for RAM: only the steps at the peak can bring it down."""
    used = reserve(choice.core).ram + 4 * arena_words
    if choice.ram is None or used <= choice.ram:
        return None
    sizes = {i: {a.name: a.estimate.words for a in options[i]} for i in peak}
    return _exchange(chosen, options, sizes)
