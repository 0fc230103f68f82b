"""The page of stored runs: verdict first, then what is left, what was done, and where from."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Literal

from bnnmcu.attack.metrics import Case
from bnnmcu.errors import UsageError
from bnnmcu.report.attacks import (
    Run,
    gaps,
    in_order,
    reading,
    run_section,
    short_of,
    side_by_side,
)
from bnnmcu.report.cells import NONE, accuracy
from bnnmcu.report.charts import draw
from bnnmcu.report.charts.numbers import named, norms_of, strongest
from bnnmcu.report.charts.pixels import examples_figure
from bnnmcu.report.charts.style import inline_svg, styled
from bnnmcu.report.costs import BenchFile, bench_section, beside, memory_section
from bnnmcu.report.document import Document, Picture, Section, Table, Verdict
from bnnmcu.report.stored import StoredRun

__all__ = ["run_page", "verdict"]

_FORMAT, _VERSION = "bnnmcu-run-report", 1
# Cases of a run whose images are shown.
_GRIDS = 4
# Of what was right when clean: with less left a network is called broken, with more the page's
# verdict is not coloured as a warning.
_BROKEN, _HOLDS = 0.1, 0.5
_NORMS = {"linf": "L∞", "l2": "L2"}


def run_page(runs: Sequence[StoredRun], bench: Sequence[BenchFile] = ()) -> Document:
    """A page about one run, or several side by side.

    Args:
        runs: at least one.
        bench: counts that stand beside them.

    Raises:
        UsageError: no run.
        MissingDependencyError: there is no matplotlib.
    """
    if not runs:
        raise UsageError("a report needs a run", where="RUN", hint="bnnmcu runs list")
    about = [_about(one) for one in runs]
    models = ", ".join(dict.fromkeys(one.model for one in about))
    with styled(inline=True):
        sections = [
            Section("In short", points=(*map(short_of, about), *gaps(about))),
            *([side_by_side(about)] if len(runs) > 1 else []),
            *_accuracies(runs),
            *(run_section(one) for one in about),
            *(one for i, run in enumerate(runs) for one in _images(run, f"i{i}", len(runs))),
            *_distortions(runs),
            *(bench_section(one, f"b{i}") for i, one in enumerate(bench)),
            *_memories(runs),
            _provenance(runs),
            _again(runs),
            reading(about),
        ]
    facts = {
        "format": _FORMAT,
        "version": _VERSION,
        "runs": [{"results": run.path.name, "summary": run.summary.to_dict()} for run in runs],
    }
    return Document(f"{models}: under attack", tuple(sections), facts, verdict(runs))


def verdict(runs: Sequence[StoredRun]) -> Verdict:
    """What the runs come to; warnings come before figures."""
    open_ended = [run.title for run in runs if not run.summary.complete]
    warnings = sum(flag.severity == "warning" for run in runs for flag in run.summary.flags)
    worst = [(run, case) for run in runs if (case := strongest(run)) is not None]
    if not worst:
        return Verdict("warn", "Nothing was attacked: these figures say nothing of robustness.")
    run, case = min(worst, key=lambda one: one[1].mean.value)
    right = next((one.mean.value for one in run.summary.cases if one.clean), 1.0)
    left = f"{accuracy(case.mean)} are left right under {named(case)} ({run.title})"
    if open_ended:
        return Verdict("bad", f"Not complete: {', '.join(open_ended)}. So far {left}.")
    if case.mean.value <= _BROKEN * right:
        return Verdict("bad", f"Broken: {left}.")
    if warnings:
        are = "warnings are" if warnings > 1 else "warning is"
        return Verdict(
            "warn",
            f"{left}; {warnings} {are} raised below, so a stronger attack may leave less.",
        )
    kind: Literal["good", "warn"] = "good" if case.mean.value >= _HOLDS * right else "warn"
    return Verdict(kind, f"{left}; no warning was raised. Another attack may leave less.")


def _about(run: StoredRun) -> Run:
    identity = run.summary.identity
    return Run(
        identity["model"]["name"],
        identity["oracle"]["name"],
        run.path,
        in_order(run.summary),
        run.sessions,
        run.timing,
    )


def _accuracies(runs: Sequence[StoredRun]) -> Iterator[Section]:
    pictures = []
    for norm in norms_of(runs):
        figure = draw.accuracy_figure(runs, norm)
        if figure is not None:
            pictures.append(
                Picture(
                    "",
                    f"Accuracy against epsilon ({_NORMS[norm]})",
                    "bands: 95 % intervals over images; a line begins at the clean accuracy",
                    svg=inline_svg(figure, f"a{norm}"),
                )
            )
    steps = draw.iterations_figure(runs)
    if steps is not None:
        pictures.append(Picture("", "Accuracy against iterations", svg=inline_svg(steps, "steps")))
    queries = draw.queries_figure(runs)
    if queries is not None:
        pictures.append(
            Picture(
                "",
                "Images fooled against queries",
                "of attacks that see nothing but answers; one query is one inference",
                svg=inline_svg(queries, "queries"),
            )
        )
    notes = (
        ()
        if steps
        else (
            "Accuracy against iterations is not drawn: it needs one attack with several numbers of "
            "iterations, and nothing else changed (docs/ATTACKS.md).",
        )
    )
    yield Section("What is left", pictures=tuple(pictures), notes=notes)


def _images(run: StoredRun, name: str, of: int) -> Iterator[Section]:
    """Examples, and who was taken for whom."""
    title = f": {run.title}" if of > 1 else ""
    pictures = []
    for number, case in enumerate(_to_show(run)):
        shown = run.shown.get((case.attack, case.levels), ())
        figure = examples_figure(shown)
        if figure is not None:
            labels = "; ".join(f"image {one.image}: {one.before} to {one.after}" for one in shown)
            pictures.append(
                Picture(
                    "",
                    f"{named(case)}: right when clean, and not any more",
                    f"above each image the label that most draws gave it ({labels}); difference: "
                    "grey is unchanged, scaled to the largest change of each image",
                    svg=inline_svg(figure, f"{name}g{number}"),
                )
            )
    cases = [case for case in run.summary.cases if case.clean][:1]
    worst = strongest(run)
    cases += [worst] if worst is not None else []
    figure = draw.confusion_figure(run, cases)
    if figure is not None:
        pictures.append(
            Picture(
                "",
                "Who is taken for whom",
                "percent of the draws of a true label's images (rows) that gave each answer "
                "(columns); blue: right",
                svg=inline_svg(figure, f"{name}c"),
            )
        )
    if pictures:
        yield Section(f"Images{title}", pictures=tuple(pictures))


def _to_show(run: StoredRun) -> list[Case]:
    """The smallest budget of each attack that fooled anything, strongest attacks first."""
    found: dict[str, Case] = {}
    for case in sorted(run.summary.cases, key=lambda case: case.levels):
        if run.shown.get((case.attack, case.levels)):
            found.setdefault(case.attack, case)
    return sorted(found.values(), key=lambda case: case.mean.value)[:_GRIDS]


def _distortions(runs: Sequence[StoredRun]) -> Iterator[Section]:
    pictures = []
    for number, run in enumerate(runs):
        figure = draw.distortion_figure(run)
        if figure is not None:
            pictures.append(
                Picture(
                    "",
                    f"How far images were moved: {run.title}",
                    "of images that were right when clean and are not any more; line: median",
                    svg=inline_svg(figure, f"d{number}"),
                )
            )
    if pictures:
        yield Section("Distortion", pictures=tuple(pictures))


def _memories(runs: Sequence[StoredRun]) -> Iterator[Section]:
    done = set()
    for number, run in enumerate(runs):
        project = beside(run)
        if project is not None and project.folder not in done:
            done.add(project.folder)
            yield memory_section(project, f"m{number}")


def _provenance(runs: Sequence[StoredRun]) -> Section:
    rows = []
    for run in runs:
        for session in run.sessions:
            about = session.provenance
            versions = about.get("versions") or {}
            rows.append(
                (
                    run.path.name,
                    _time(session.started_at),
                    _time(session.ended_at),
                    str(about.get("board") or NONE),
                    str(about.get("firmware") or NONE),
                    ", ".join(f"{name} {versions[name]}" for name in sorted(versions)) or NONE,
                    str(about.get("host") or NONE),
                )
            )
    points = []
    for run in runs:
        model, data = run.summary.identity["model"], run.summary.identity["data"]
        points.append(
            f"{run.path.name}: network {model['name']}, SHA-256 {model.get('sha256') or NONE}; "
            f"{data['images']:,} images of {data['name']}, SHA-256 {data.get('sha256') or NONE}; "
            f"seed {run.summary.identity['config'].get('seed', NONE)}"
        )
    table = Table(
        "sessions",
        ("results", "started (UTC)", "ended", "board", "firmware", "versions", "host"),
        tuple(rows),
        text_columns=7,
        caption="without an end: killed, or going on",
    )
    return Section("Where this is from", points=tuple(points), tables=(table,) if rows else ())


def _time(text: str | None) -> str:
    return text[:19].replace("T", " ") if text else NONE


def _again(runs: Sequence[StoredRun]) -> Section:
    """Commands: of the runs, and of a look at their images."""
    points = []
    for run in runs:
        for session in run.sessions[:1]:
            words = session.provenance.get("command")
            if isinstance(words, list) and words and all(isinstance(one, str) for one in words):
                points.append(f"{run.path.name} was begun with: bnnmcu {shlex.join(words)}")
        points.append(f"its images once more, to any board: bnnmcu replay {run.path.name} ...")
    points.append(
        "this page: bnnmcu report "
        + " ".join(shlex.quote(run.path.name) for run in runs)
        + " -o report.html"
    )
    return Section("How to repeat it", points=tuple(points))
