"""Tables of one run under attack."""

from __future__ import annotations

from collections.abc import Sequence

from bnnmcu.attack.metrics import Case, Summary
from bnnmcu.report.cells import (
    NONE,
    accuracy,
    budget_asked,
    budget_used,
    number,
    percent,
    seconds,
)
from bnnmcu.report.document import Table

__all__ = ["accuracy_table", "summary_tables"]

_ADVERSARIES = {
    "paper": "one draw a step",
    "eot": "averages over draws, does not know the seed",
    "seed-known": "the network is deterministic to it",
    "seed-chosen": "picks the seed as well",
}


def summary_tables(summary: Summary) -> list[Table]:
    """All tables of a run; those without a row are left out."""
    attacks = [case for case in summary.cases if not case.clean]
    tables = [accuracy_table(summary)]
    if attacks:
        tables.append(_attacks(attacks))
    tables += [
        table
        for table in (_rounding(attacks), _adversaries(attacks), _settings(attacks))
        if table is not None
    ]
    return tables


def accuracy_table(summary: Summary) -> Table:
    """What is left right under each attack."""
    model, oracle, data = (summary.identity[name] for name in ("model", "oracle", "data"))
    draws = f", {summary.identity['config']['draws']} fresh draws each" * model["stochastic"]
    few = any(case.draws < summary.identity["config"]["draws"] for case in summary.cases)
    known = "; an adversary who knows the seed is judged on that draw alone"
    # Where all cases have as many, the caption says it.
    counted = len({case.examples for case in summary.cases}) > 1
    return Table(
        f"{model['name']} on {oracle['name']} ({oracle['label']}): accuracy under attack",
        (
            *("attack", "asked", "epsilon"),
            *(["n"] if counted else []),
            *("mean of draws [95 %]", "majority", "all draws", "mean L2"),
        ),
        tuple(
            (
                *(case.attack, budget_asked(case), budget_used(case)),
                *([f"{case.examples:,}"] if counted else []),
                accuracy(case.mean),
                percent(case.majority.value),
                percent(case.worst.value),
                number(case.l2),
            )
            for case in summary.cases
        ),
        caption=f"{data['images']} images of {data['name']}{draws}"
        + (known if few and model["stochastic"] else "")
        + "; true-label accuracy, ties of the majority go to the attacker; budgets are whole pixel "
        "levels, accuracies after rounding to pixels; L2 over all examples"
        + ("" if summary.complete else "; NOT COMPLETE: start the run again"),
    )


def _attacks(attacks: Sequence[Case]) -> Table:
    return Table(
        "what the attacks did",
        ("attack", "success [95 %]", "target hit", "unchanged", "L2", "median", "queries", "time"),
        tuple(
            (
                _named(case),
                accuracy(case.attack_success),
                percent(case.target_hit.value if case.target_hit else None),
                percent(case.unchanged),
                number(case.successes.l2_mean if case.successes else None),
                number(case.successes.l2_median if case.successes else None),
                _queries(case),
                seconds(case.seconds / case.examples if case.seconds is not None else None),
            )
            for case in attacks
        ),
        caption="success: of those right by majority when clean, the share that is not any more; "
        "L2: mean and median over these; queries: inferences an example cost the attacker, median; "
        "time: crafting, an example",
    )


def _queries(case: Case) -> str:
    if case.queries is None:
        return NONE
    # A substitute is trained once, for all images.
    shared = " in all" if case.kind == "substitute" else ""
    return number(case.queries.median, 0) + shared


def _rounding(attacks: Sequence[Case]) -> Table | None:
    rows = tuple(
        (
            _named(case),
            f"{found.examples:,}",
            percent(found.before),
            percent(found.after),
            number(found.l2_before),
            number(found.l2_after),
        )
        for case in attacks
        if (found := case.rounding) is not None
    )
    if not rows:
        return None
    return Table(
        "before and after rounding to pixels",
        ("attack", "n", "fooled before", "after", "L2 before", "after"),
        rows,
        caption="share of fresh draws that are fooled on the network that the images were crafted "
        "on, of the attacks that leave the pixels' grid",
    )


def _adversaries(attacks: Sequence[Case]) -> Table | None:
    """The same attack by attackers who know more and more."""
    groups: dict[tuple[str, str, str], dict[str, Case]] = {}
    for case in attacks:
        key = case.kind, budget_used(case), str(case.settings.get("model") or "")
        # The first of several settings: the others are in the table of settings.
        groups.setdefault(key, {}).setdefault(case.adversary, case)
    several = {key: found for key, found in groups.items() if len(found) > 1}
    if not several:
        return None
    shown = [name for name in _ADVERSARIES if any(name in found for found in several.values())]
    return Table(
        "adversaries side by side: accuracy, mean of draws",
        ("attack", "epsilon", *shown),
        tuple(
            (
                kind,
                epsilon,
                *(percent(found[name].mean.value) if name in found else NONE for name in shown),
            )
            for (kind, epsilon, _), found in several.items()
        ),
        caption="; ".join(f"{name}: {_ADVERSARIES[name]}" for name in shown),
    )


def _settings(attacks: Sequence[Case]) -> Table | None:
    """Several settings of one attack, and what made the difference."""
    free = [case for case in attacks if not case.norm and "iterations" in case.settings]
    kinds = [case.kind for case in free]
    rows = tuple(
        (
            case.attack,
            str(case.step_draws),
            number(_setting(case, "confidence"), 1),
            number(_setting(case, "search_steps"), 0),
            "yes" if case.settings.get("early_abort") else "no",
            number(case.iterations, 0),
            percent(case.gave_up),
            accuracy(case.mean),
        )
        for case in free
        if kinds.count(case.kind) > 1
    )
    if not rows:
        return None
    return Table(
        "one attack, several settings",
        ("attack", "draws", "kappa", "searches", "aborts", "steps", "gave up", "left right"),
        rows,
        caption="draws: a step averages over; searches: binary search over c; aborts: stops early "
        "where the loss no longer falls; steps: iterations made, mean; gave up: of the examples "
        "right when clean, those that came back unchanged",
    )


def _setting(case: Case, name: str) -> float | None:
    value = case.settings.get(name)
    return float(value) if isinstance(value, int | float) else None


def _named(case: Case) -> str:
    budget = {"linf": f" {case.levels}/255", "l2": f" L2 {case.epsilon:g}"}
    return case.attack + budget.get(case.norm, "")
