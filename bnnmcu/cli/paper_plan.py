"""``bnnmcu paper --plan``: what would be done, and about how long it would take."""

from __future__ import annotations

from pathlib import Path

from bnnmcu.cli.output import note, print_json, print_table
from bnnmcu.paper.costs import Costs
from bnnmcu.paper.job_data import Sources
from bnnmcu.paper.jobs import Job
from bnnmcu.paper.results import read_results
from bnnmcu.paper.selection import Selection, tasks

__all__ = ["print_plan"]

_HOUR = 3600.0


def print_plan(
    selection: Selection, path: Path, sources: Sources, cache: Path, *, as_json: bool
) -> None:
    """List the jobs without a record, with core-hours as far as anything like them was measured.

    Raises:
        DataError: the images are not there.
        StoreError: the results file is unsound.
    """
    from bnnmcu.paper.trained import Cache

    records = read_results(path)
    costs = Costs(records.values())
    sets: dict[str, tuple[str, str, Cache]] = {}
    counted: set[object] = set()
    rows, facts, total, unknown = [], [], 0.0, 0
    for task in tasks(selection):
        if not isinstance(task.job, Job):
            continue
        name = task.job.trainable.dataset
        if name not in sets:
            data = sources.load(name)
            sets[name] = data.test.name, data.test.sha256(), Cache(cache, data.train)
        if task.job.id(*sets[name][:2]) in records:
            continue
        trainable = task.job.trainable
        training: float | None = 0.0
        if trainable not in counted and sets[name][2].find(trainable) is None:
            training = costs.training(trainable)
        counted.add(trainable)
        measuring = costs.measuring(task.job)
        unknown += (training is None) + (measuring is None)
        total += (training or 0.0) + (measuring or 0.0)
        rows.append((task.table, task.name, _hours(training), _hours(measuring)))
        facts.append(
            {
                "table": task.table,
                "model": trainable.key,
                "measure": task.job.measure,
                "training_s": training,
                "measuring_s": measuring,
                "command": task.command,
            }
        )
    if as_json:
        print_json({"results": str(path), "jobs": facts, "estimated_s": total, "unknown": unknown})
        return
    print_table(
        f"{len(rows):,} jobs have no record yet",
        ("for", "network and measure", "training, h", "measuring, h"),
        rows,
        text_columns=2,
        caption=f"Estimated: {total / _HOUR:.1f} core-hours, from records of the same measure and "
        f"from measured step times{f'; {unknown} without an estimate' if unknown else ''}.",
    )
    note(f"records would go to {path}, networks to {cache}")


def _hours(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds / _HOUR:.2f}" if seconds else "-"
