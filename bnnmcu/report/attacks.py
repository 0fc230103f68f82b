"""The report of a campaign: all of its runs, what was asked, and what figures rest on.

Flags come before figures.  Everything that must be known to repeat a run is
under "Protocol", and the facts of the document hold all figures, for scripts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bnnmcu.attack.campaign_file import CampaignFile
from bnnmcu.attack.metrics import Case, Summary
from bnnmcu.report.attack_tables import summary_tables
from bnnmcu.report.cells import NONE, accuracy, budget_used, seconds
from bnnmcu.report.document import Document, Section, Table
from bnnmcu.report.flag_text import told
from bnnmcu.store.rows import Stored
from bnnmcu.store.sessions import Session
from bnnmcu.store.timing import Timing, timing_of

__all__ = [
    "Run",
    "gaps",
    "in_order",
    "looked_at",
    "reading",
    "report",
    "run_of",
    "run_section",
    "short_of",
    "side_by_side",
]

_FORMAT, _VERSION = "bnnmcu-attack-report", 1
_LABELS = {
    "hardware": "a real board",
    "emulated": "the board's firmware on an emulator, not on a chip",
    "native": "the generated C compiled for this machine, no board",
    "reference": "the numpy reference, no board",
    "float": "the float network, which no board runs",
}
_VERSIONS = ("bnnmcu", "torch", "numpy", "python")


@dataclass(frozen=True)
class Run:
    """One network on one board.

    Attributes:
        model, board: names in the campaign file.
        results: its file.
        summary: figures and flags.
        sessions: every time that it was started.
        timing: of its requests.
    """

    model: str
    board: str
    results: Path
    summary: Summary
    sessions: tuple[Session, ...]
    timing: Timing

    @property
    def label(self) -> str:
        """What kind of thing answered."""
        return str(self.summary.identity["oracle"]["label"])

    @property
    def title(self) -> str:
        """For headings."""
        return f"{self.model} on {self.board} ({self.label})"


def run_of(
    model: str,
    board: str,
    results: Path,
    summary: Summary,
    sessions: Sequence[Session],
    rows: Iterable[Stored],
) -> Run:
    """A run from what its results file holds, its cases in the order of the campaign."""
    ordered = in_order(summary)
    return Run(model, board, results, ordered, tuple(sessions), timing_of(rows))


def in_order(summary: Summary) -> Summary:
    """With the cases in the order of the campaign, where the run says it."""
    attacks = summary.identity["config"]["attacks"]
    order = {(one.get("case"), one.get("levels")): i for i, one in enumerate(attacks)}
    # In the file, what was crafted for another board stands first.
    cases = sorted(summary.cases, key=lambda case: order.get((case.attack, case.levels), -1))
    return replace(summary, cases=tuple(cases))


def report(campaign: CampaignFile, runs: Sequence[Run]) -> Document:
    """The report of all runs of a campaign.

    Args:
        runs: at least one.
    """
    short = Section("In short", points=(*(short_of(one) for one in runs), *gaps(runs)))
    sections = [short, _protocol(campaign, runs), *(run_section(one) for one in runs)]
    if len(runs) > 1:
        sections.append(side_by_side(runs))
    sections.append(reading(runs))
    return Document(
        f"{campaign.name}: networks under attack", tuple(sections), _facts(campaign, runs)
    )


def short_of(run: Run) -> str:
    """What is left right by the best that an attacker can do."""
    cases = run.summary.cases
    text = run.title
    for case in cases:
        if case.clean:
            text += f": {accuracy(case.mean)} right when clean"
    for knows, words in ((False, "with the seed unknown"), (True, "with the seed known")):
        attacks = [case for case in cases if not case.clean and case.knows_seed == knows]
        best = min(attacks, key=lambda case: case.mean.value, default=None)
        if best is not None:
            text += f"; {accuracy(best.mean)} under {best.name}, {words}"
    warnings = sum(flag.severity == "warning" for flag in run.summary.flags)
    return f"{text}; {warnings} warning{'s' * (warnings != 1)}"


def gaps(runs: Sequence[Run]) -> Iterator[str]:
    """Where the setting of an attack decides what is left, each sentence once."""
    said: dict[str, list[str]] = {}
    for run in runs:
        for flag in run.summary.flags:
            if flag.code == "weaker-setting" and flag.severity == "warning":
                said.setdefault(flag.text, []).append(run.title)
    for text, titles in said.items():
        yield f"{', '.join(titles)}: {text}"


def _protocol(campaign: CampaignFile, runs: Sequence[Run]) -> Section:
    first = runs[0].summary.identity
    data = first["data"]
    about = runs[-1].sessions[-1].provenance if runs[-1].sessions else {}
    versions = about.get("versions") or {}
    points = [
        f"campaign file: {campaign.path.name}, SHA-256 {campaign.sha256[:16]}...; run seed "
        f"{campaign.seed}, from which every start, draw and query derives",
        f"data: {data['images']:,} images of {data['name']}, class by class in turn, SHA-256 "
        f"{str(data.get('sha256', ''))[:16]}...",
        f"judged on {campaign.draws} draws an image, each with a seed of its own, none of them "
        "seen in crafting unless the adversary knows it; networks without draws on one",
        "crafting: seeds by case and chunk; every attack projects to whole pixel levels before it "
        "judges its own success",
        "versions: "
        + (", ".join(f"{name} {versions[name]}" for name in _VERSIONS if name in versions) or NONE)
        + (f"; {about['host']}" if about.get("host") else ""),
    ]
    points += [_pairs(case) for case in runs[0].summary.cases if case.pairs]
    return Section("Protocol", points=tuple(points))


def _pairs(case: Case) -> str:
    fewest, most = (f(pair.examples for pair in case.pairs) for f in (min, max))
    each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return (
        f"{case.attack}: {case.examples:,} pairs of an image and a wrong label, from "
        f"{case.images:,} images; {len(case.pairs)} cells of true label and target, {each} each"
    )


def run_section(run: Run) -> Section:
    model, oracle = run.summary.identity["model"], run.summary.identity["oracle"]
    text = (
        f"{model['name']} (SHA-256 {str(model['sha256'])[:16]}...), answered by {oracle['name']}: "
        f"{_LABELS.get(run.label, run.label)}. Everything below is labelled so: {run.label}."
    )
    crafting = sum(case.seconds or 0.0 for case in run.summary.cases)
    cost = (
        f"{run.timing.text()}; crafting took {seconds(crafting)} on one core, waiting for answers "
        f"included. Results: {run.results.name}."
    )
    return Section(
        run.title,
        paragraphs=(text, cost, *looked_at(run.summary)),
        points=tuple(told(run.summary.flags)) or ("no flag was raised",),
        tables=tuple(summary_tables(run.summary)),
    )


def looked_at(summary: Summary) -> Iterable[str]:
    """What was computed again of a run, in a sentence; nothing where nobody looked."""
    audit = summary.audit
    if audit is not None:
        yield (
            f"Looked at again: {audit.changes:,} changes against budget, norm and clean image"
            + (f"; every answer with a known seed, by {audit.judge}" if audit.judge else "")
            + f"; of {audit.successes:,} successes {audit.recomputed:,} were computed again; "
            f"{audit.wrong:,} examples did not hold."
        )


def side_by_side(runs: Sequence[Run]) -> Section:
    """The same cases on every network and board."""
    places: dict[tuple[str, str], list[str]] = {}
    for number, run in enumerate(runs):
        for case in run.summary.cases:
            cells = places.setdefault((case.attack, budget_used(case)), [NONE] * len(runs))
            cells[number] = accuracy(case.mean)
    table = Table(
        "accuracy, mean of draws [95 %]",
        ("attack", "epsilon", *(run.title for run in runs)),
        tuple((*place, *cells) for place, cells in places.items()),
        text_columns=2,
    )
    return Section("Side by side", tables=(table,))


def reading(runs: Sequence[Run]) -> Section:
    labels = list(dict.fromkeys(run.label for run in runs))
    return Section(
        "How to read this",
        points=(
            *(f"{label}: {_LABELS.get(label, label)}" for label in labels),
            "accuracy is against the true label, on all images: one that was wrong when clean "
            "counts as wrong",
            "a figure is as good as the strongest attack behind it: an attack that fails shows "
            "nothing, which is what the flags are about",
            "low accuracy is proof (the images are stored, and every one can be replayed); high "
            "accuracy is not",
            "intervals are 95 %: over images, which are what was sampled",
        ),
    )


def _facts(campaign: CampaignFile, runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "campaign": {
            "name": campaign.name,
            "file": campaign.path.name,
            "sha256": campaign.sha256,
            "seed": campaign.seed,
            "draws": campaign.draws,
        },
        "complete": all(run.summary.complete for run in runs),
        "runs": [
            {
                "model": run.model,
                "board": run.board,
                "label": run.label,
                "results": run.results.name,
                "sessions": [_session(session) for session in run.sessions],
                "timing": asdict(run.timing),
                "summary": run.summary.to_dict(),
            }
            for run in runs
        ],
    }


def _session(session: Session) -> Mapping[str, Any]:
    return {
        "started_at": session.started_at,
        "ended_at": session.ended_at,
        "versions": session.provenance.get("versions"),
    }
