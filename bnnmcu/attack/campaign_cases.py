"""The ``[[attack]]`` tables of a campaign file, multiplied out into cases.

A key may hold a list where its setting takes one value; every combination of
such lists is a case.  What varies goes into the case's name, so that each has
a name of its own in results and reports; budgets do not where their pixel
levels already tell the cases apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, get_origin, get_type_hints

from bnnmcu.attack.config import KINDS, PRESETS, AttackConfig
from bnnmcu.attack.toml_values import check_keys, check_name, checked, nearest
from bnnmcu.errors import UsageError

__all__ = ["attack_cases", "has_budget", "kind_of"]

_HEAD = ("kind", "preset", "name")
_MAX_CASES = 1000


def kind_of(name: str) -> type[AttackConfig]:
    """The class of a kind's settings, or of a preset's."""
    if name in KINDS:
        return KINDS[name]
    return type(PRESETS[name](**({} if has_budget(name) else {"epsilon": 0.0})))


def has_budget(name: str) -> bool:
    """Whether an attack needs no epsilon to be told: a preset with its own, or one without any."""
    if name in KINDS:
        kind = KINDS[name]
        return all(field.default is not MISSING for field in fields(kind))
    try:
        PRESETS[name]()
    except TypeError:
        return False
    return True


def attack_cases(
    tables: Sequence[Mapping[str, Any]], models: Sequence[str], where: str
) -> tuple[AttackConfig, ...]:
    """All cases of a file's ``[[attack]]`` tables, in order.

    Args:
        tables: as TOML gives them.
        models: names that ``model`` may have.
        where: the file, for messages.

    Raises:
        UsageError: a key, value or name that cannot be, or one case twice.
    """
    cases: list[AttackConfig] = []
    seen: dict[tuple[str, int], str] = {}
    for number, table in enumerate(tables, start=1):
        place = f"{where}: [[attack]] {number}"
        for case in _cases(table, models, place):
            key = (case.case, case.levels)
            if key in seen:
                raise UsageError(
                    f"the case {case.case!r} with {case.levels} pixel levels is in {seen[key]} too",
                    where=place,
                    hint="give one of them another 'name'",
                )
            seen[key] = f"[[attack]] {number}"
            cases.append(case)
            if len(cases) > _MAX_CASES:
                raise UsageError(
                    f"more than {_MAX_CASES} cases", where=place, hint="shorten the lists"
                )
    return tuple(cases)


def _cases(table: Mapping[str, Any], models: Sequence[str], place: str) -> list[AttackConfig]:
    base, kind = _base(table, place)
    place = f"{place} ({base})"
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind) if field.init and field.name != "name"]
    check_keys(table, [*_HEAD, *known], place)
    if "epsilon" not in table and not has_budget(table.get("kind") or table["preset"]):
        raise UsageError("missing key 'epsilon'", where=place, hint="for example: epsilon = 0.3")
    choices: dict[str, list[Any]] = {}
    for key in known:
        if key in table:
            choices[key] = _values(hints[key], table[key], f"{place}: {key}")
    for model in choices.get("model", ()):
        if model and model not in models:
            raise UsageError(
                f"no model is called {model!r}",
                where=f"{place}: model",
                hint=nearest(model, models),
            )
    varying = [key for key, values in choices.items() if len(values) > 1]
    made = [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]
    if "epsilon" in varying:
        levels = {_make(table, settings, "", place).levels for settings in made}
        # Where budgets are no pixel levels, or round to the same, the name has to tell.
        if len(levels) == len(choices["epsilon"]):
            varying.remove("epsilon")
    cases = []
    for settings in made:
        name = "-".join([base, *(_suffix(key, settings[key]) for key in varying)])
        own = "" if name == table.get("kind") else check_name(name, f"{place}: name")
        cases.append(_make(table, settings, own, place))
    return cases


def _base(table: Mapping[str, Any], place: str) -> tuple[str, type[AttackConfig]]:
    """What the table's cases are called, and the class of their settings."""
    given = [key for key in ("kind", "preset") if key in table]
    if len(given) != 1:
        raise UsageError(
            "'kind' and 'preset' exclude each other" if given else "neither 'kind' nor 'preset'",
            where=place,
            hint=f"kinds: {', '.join(KINDS)}; presets: {', '.join(PRESETS)}",
        )
    known: Mapping[str, Any] = KINDS if given == ["kind"] else PRESETS
    chosen = checked(str, table[given[0]], f"{place}: {given[0]}")
    if chosen not in known:
        raise UsageError(f"unknown {given[0]} {chosen!r}", where=place, hint=nearest(chosen, known))
    name = checked(str, table.get("name", chosen), f"{place}: name")
    return check_name(name, f"{place}: name"), kind_of(chosen)


def _values(hint: Any, value: Any, where: str) -> list[Any]:
    """One value, or all of a list where the setting itself is none."""
    several = isinstance(value, list) and get_origin(hint) is not tuple
    given = list(value) if several else [value]
    if not given:
        raise UsageError("an empty list", where=where, hint="leave the key out, or name a value")
    values = [checked(hint, one, where) for one in given]
    if len(set(values)) != len(values):
        raise UsageError(f"{value!r:.60} has a value twice", where=where)
    return values


def _make(
    table: Mapping[str, Any], settings: Mapping[str, Any], name: str, place: str
) -> AttackConfig:
    try:
        if "preset" in table:
            return PRESETS[table["preset"]](**settings, name=name or table["preset"])
        return KINDS[table["kind"]](**settings, name=name)
    except UsageError as error:
        raise UsageError(error.what, where=place, hint=error.hint) from error


def _suffix(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return key if value else f"no-{key}"
    if isinstance(value, int | float):
        return f"{'eps' if key == 'epsilon' else key}{value:g}".replace("_", "-")
    return str(value) or "own"
