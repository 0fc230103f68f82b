"""``bnnmcu paper``."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from bnnmcu.cli.clusters import ClusterChoice, opened
from bnnmcu.cli.options import json_option, progress_options
from bnnmcu.cli.output import note, print_json, report_interrupt
from bnnmcu.errors import BnnmcuError, UsageError
from bnnmcu.paper.selection import PARTS, Selection, tasks
from bnnmcu.paper.tables import ORDER, TABLES
from bnnmcu.paper.tables.spec import FILTERS, Sizes

if TYPE_CHECKING:
    from bnnmcu.paper.assemble import Shown

__all__ = ["command"]

_FIGURES = ("figure2", "figure3", "figure4", "figure5")
_SEEDS = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?\Z")
_STORED = Path("docs") / "paper" / "results.json"


@click.command("paper")
@click.argument("what", nargs=-1, metavar="[table1 ... table6 | figure2 ... figure5 | all]...")
@click.option(
    "--k",
    "filters",
    type=click.IntRange(1, 4096),
    multiple=True,
    help="Filters of the first layer; may be repeated. Default: 64, and B32 in table 3.",
)
@click.option("--row", "rows", multiple=True, help="Only this network, e.g. B64+; may be repeated.")
@click.option(
    "--seeds",
    metavar="N|A-B",
    help="Trainings 1 to N, or A to B. Default: 4 in tables "
    "1 and 6, 1 of what is dear to train, else 2.",
)
@click.option(
    "--recipe",
    type=click.Choice(["paper", "best", "both"]),
    default="both",
    show_default=True,
    help="The paper's training, our best, or both.",
)
@click.option(
    "--part",
    "parts",
    type=click.Choice(PARTS),
    multiple=True,
    help="Only this part of a table; may be repeated. Default: all.",
)
@click.option(
    "--pairs",
    type=click.IntRange(min=1),
    help="Pairs of image and target of CW-L2. Default: 990; 270 of the adaptive attack, "
    "200 with 1,000 iterations.",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    help="Test images. Default: all; 1,000 of the adaptive attack, 200 on an emulated board.",
)
@click.option(
    "--emulate",
    type=click.Choice(["auto", "qemu", "unicorn", "none"]),
    default="auto",
    show_default=True,
    help="Emulator of the board; none leaves that out.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where networks are trained and gradients computed.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Chunks of images crafted side by side.",
)
@click.option(
    "--cluster",
    is_flag=False,
    flag_value="local",
    metavar="[local|ADDRESS|FILE]",
    help="Craft on a Dask cluster; local: --workers processes. Networks are trained here.",
)
@click.option(
    "--cluster-tls",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder with ca.pem, cert.pem and key.pem, for a running cluster.",
)
@click.option(
    "--data",
    default="mnist",
    show_default=True,
    help="Folder of MNIST's IDX files, "
    "mnist, or digits: 5,000 digits that come with a package, not the paper's data.",
)
@click.option("--cifar", help="Folder of CIFAR-10's files, or a copy of it in JPEG; for table 5.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of trained networks. Default: in the user's cache folder.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Records. Default: docs/paper/results.json where there is one, else "
    "paper/results.json; of digits, paper/results-digits.json.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the pages: index.md, index.html, index.json.",
)
@click.option(
    "--adopt",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take this trained model into the cache as the one network that is chosen.",
)
@click.option("--show", is_flag=True, help="Measure nothing: print what is stored.")
@click.option("--plan", is_flag=True, help="Measure nothing: list what would be done.")
@progress_options
@json_option
def command(what: tuple[str, ...], show: bool, plan: bool, as_json: bool, **options: Any) -> None:
    """Measure the paper's tables and figures again, and print them beside the paper's numbers.

    Networks that are missing are trained, attacked and judged; every record is
    stored as it comes, with all that made it. The same command goes on where a
    run was stopped. Tables are worked on in the order 6, 1, 3, 2, 4, 5.
    docs/PAPER.md describes it.

    \b
    Example:
      bnnmcu paper --show
      bnnmcu paper table6 --row B64 --seeds 1 --recipe best --data mnist
      bnnmcu paper all --data digits --k 8 --seeds 1 --recipe best
    """
    from bnnmcu.paper.job_data import Sources

    names, figures = _chosen(what)
    sources = Sources(options["data"], options["cifar"])
    if set(what) & set(_FIGURES) and (options["rows"] or options["parts"]):
        raise UsageError(
            "a figure has neither rows nor parts",
            where="--row" if options["rows"] else "--part",
            hint="leave it out, or name tables only",
        )
    selection = _selection(names, figures, sources.arguments(), options)
    if "table5" in names and sources.cifar10 is None and not show:
        if "table5" in what:
            sources.load("cifar10")
        note("table 5 is left out: no CIFAR-10 is known (--cifar)")
        selection = replace(
            selection, tables=tuple(name for name in selection.tables if name != "table5")
        )
    path = options["results"] or _results_path(sources.is_paper_data)
    if plan and not show:
        from bnnmcu.cli.paper_plan import print_plan

        print_plan(selection, path, sources, _cache(options["cache"]), as_json=as_json)
        return
    failed = None
    if not show:
        if sources.notice:
            note(sources.notice)
        try:
            failed = _measure(selection, path, sources, options)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(
                report_interrupt(
                    f"finished records are in {path}; trainings and attacks go on from their "
                    "last epoch or chunk",
                    results=str(path),
                    next=shlex.join(["bnnmcu", *_typed()]),
                )
            ) from None
    _print(selection, path, options["out"], everything=show, as_json=as_json)
    if failed is not None:
        note("warning: what failed is told above; the same command tries it again")
        raise failed


def _typed() -> list[str]:
    import sys

    return sys.argv[1:]


def _chosen(what: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tables and figures by name; all of them where none is named."""
    known = (*TABLES, *_FIGURES)
    for name in what:
        if name not in (*known, "all"):
            raise UsageError(
                f"there is no {name!r} in the paper", hint=f"use {', '.join(known)} or all"
            )
    wanted = known if not what or "all" in what else what
    return (
        tuple(name for name in ORDER if name in wanted),
        tuple(name for name in _FIGURES if name in wanted),
    )


def _selection(
    names: tuple[str, ...],
    figures: tuple[str, ...],
    arguments: tuple[str, ...],
    options: dict[str, Any],
) -> Selection:
    recipe = options["recipe"]
    pairs, images = options["pairs"], options["images"]
    sizes, more = Sizes(), list(arguments)
    if pairs is not None:
        sizes = replace(
            sizes,
            pairs=pairs,
            long_pairs=min(pairs, sizes.long_pairs),
            adaptive_pairs=min(pairs, sizes.adaptive_pairs),
        )
        more += ["--pairs", str(pairs)]
    if images is not None:
        sizes = replace(
            sizes,
            images=images,
            adaptive_images=min(images, sizes.adaptive_images),
            board_images=min(images, sizes.board_images),
        )
        more += ["--images", str(images)]
    selection = Selection(
        tables=names,
        filters=tuple(options["filters"]) or None,
        seeds=_seeds(options["seeds"]),
        recipes=("paper", "best") if recipe == "both" else (recipe,),
        rows=options["rows"],
        parts=options["parts"],
        sizes=sizes,
        emulator=None if options["emulate"] == "none" else options["emulate"],
        arguments=tuple(more),
        figures=figures if not options["rows"] and not options["parts"] else (),
    )
    if names:
        selection.specs()
    return selection


def _seeds(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = _SEEDS.match(text)
    if found:
        first, last = (1, int(found[1])) if found[2] is None else (int(found[1]), int(found[2]))
        if 1 <= first <= last:
            return first, last
    raise UsageError(
        f"{text!r} names no seeds", where="--seeds", hint="e.g. --seeds 4, or --seeds 3-4"
    )


def _results_path(paper_data: bool) -> Path:
    if not paper_data:
        return Path("paper") / "results-digits.json"
    return _STORED if _STORED.is_file() else Path("paper") / "results.json"


def _cache(folder: Path | None) -> Path:
    from bnnmcu.paper.trained import default_folder

    return folder or default_folder()


def _measure(
    selection: Selection, path: Path, sources: Any, options: dict[str, Any]
) -> BnnmcuError | None:
    from bnnmcu.cli.paper_progress import Shown
    from bnnmcu.paper.results import read_results
    from bnnmcu.paper.runner import run_tasks

    wanted = tasks(selection)
    # An unsound file is told before hours of work, not after them.
    read_results(path)
    cache = _cache(options["cache"])
    device = _device(options["device"])
    if options["adopt"] is not None:
        _adopt(options["adopt"], wanted, sources, cache)
    with opened(_cluster(options)) as engine, Shown() as lines:
        failures = run_tasks(
            wanted,
            data=sources.load,
            cache=cache,
            results=path,
            device=device,
            workers=options["workers"],
            lines=lines,
            cluster=engine,
        )
    return failures[-1].error if failures else None


def _cluster(options: dict[str, Any]) -> ClusterChoice:
    """What --cluster says; --workers are the processes of a local one."""
    from bnnmcu.cluster.settings import LOCAL, parse_cluster

    text, tls = options["cluster"], options["cluster_tls"]
    if text is None:
        if tls is not None:
            raise UsageError("is of a cluster", where="--cluster-tls", hint="add --cluster")
        return ClusterChoice()
    workers = options["workers"] if text == LOCAL else None
    return ClusterChoice(parse_cluster(text, workers=workers, tls=tls))


def _device(name: str) -> Literal["cpu", "cuda"]:
    """``cpu`` or ``cuda``; torch is asked only where it must be."""
    if name == "cpu":
        return "cpu"
    from bnnmcu.errors import MissingDependencyError

    try:
        from bnnmcu.attack.device import choose_device
    except ImportError as error:
        raise MissingDependencyError(
            "training needs torch", hint="pip install 'bnnmcu[train,attack]'"
        ) from error
    chosen: Literal["cpu", "cuda"] = "cuda" if choose_device(name).type == "cuda" else "cpu"
    if name == "auto":
        note(f"device: {chosen}")
    return chosen


def _adopt(model: Path, wanted: list[Any], sources: Any, cache: Path) -> None:
    from bnnmcu.paper.jobs import Job
    from bnnmcu.paper.trained import Cache

    jobs = (task.job for task in wanted)
    trainables = list(dict.fromkeys(job.trainable for job in jobs if isinstance(job, Job)))
    if len(trainables) != 1:
        raise UsageError(
            f"one network must be chosen for a model, these are {len(trainables)}",
            where="--adopt",
            hint="e.g. table6 --row B64 --recipe best --seeds 1-1 --adopt FILE",
        )
    images = sources.load(trainables[0].dataset)
    Cache(cache, images.train).adopt(trainables[0], model)
    note(f"{model} is {trainables[0].key} now, in {cache}")


def _print(
    selection: Selection,
    path: Path,
    out: Path | None,
    *,
    everything: bool,
    as_json: bool,
) -> None:
    """Tables of what is stored; where nothing was measured, all rows of the paper."""
    from bnnmcu.paper.assemble import assemble
    from bnnmcu.paper.lookup import Index
    from bnnmcu.paper.results import read_results

    records = read_results(path)
    index = Index(records.values())
    if everything and selection.filters is None and not selection.rows:
        selection = replace(selection, filters=FILTERS)
    shown: list[Shown] = []
    for spec in selection.specs() if selection.tables else []:
        rows = selection.rows_of(spec)
        if everything and selection.filters == FILTERS:
            rows = list(spec.rows())
        shown.append(assemble(spec, rows, index, selection))
    if out is not None:
        from bnnmcu.paper.site import write_pages

        for file in write_pages(out, index, selection, path):
            note(f"written: {file}")
    if as_json:
        print_json({"results": str(path), "tables": [one.to_dict() for one in shown]})
        return
    from bnnmcu.cli.paper_tables import print_shown

    print_shown(shown, index, path)
