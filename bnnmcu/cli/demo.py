"""``bnnmcu demo``."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.attack import make_attacks
from bnnmcu.cli.campaigns import campaign_lanes
from bnnmcu.cli.options import json_option, progress_options
from bnnmcu.cli.output import note, print_json, print_table
from bnnmcu.cli.progress import show_progress
from bnnmcu.cli.summary import print_summary

if TYPE_CHECKING:
    from bnnmcu.attack.metrics import Summary
    from bnnmcu.backend.project import Project
    from bnnmcu.bench import BenchReport
    from bnnmcu.verify import Verification

__all__ = ["command"]

_BOARD = "nucleo_f446re"
_EPSILONS = (0.1, 0.3)
_IMAGES = 100
_SEEDS = 5
_DRAWS = 10
_SEED = 1
# Where its project looks for runs.
_RESULTS = Path("s64") / "results" / "demo.sqlite"


@click.command("demo")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    help="Folder for the project and the results.",
)
@click.option(
    "--emulate",
    type=click.Choice(["auto", "qemu", "unicorn"]),
    default="auto",
    show_default=True,
    help="Which emulator; auto is unicorn if installed, else qemu.",
)
@progress_options
@json_option
def command(output: Path, emulate: str, as_json: bool) -> None:
    """Export, build, emulate, verify and attack the shipped network S64.

    A stochastic binarized network answers over a serial port, from the same
    firmware that a NUCLEO-F446RE runs, while it is attacked.

    \b
    Example:
      bnnmcu demo
    """
    from bnnmcu.backend.choice import KernelChoice
    from bnnmcu.backend.project import load_project, write_project
    from bnnmcu.boards import all_boards, load_board
    from bnnmcu.compiler import read_source
    from bnnmcu.passes import lower
    from bnnmcu.resources import model_path

    started = time.monotonic()
    with model_path("s64.pt") as path:
        source = read_source(path)
    graph = lower(source.network).graph
    folder = output / "s64"
    write_project(
        graph,
        load_board(_BOARD),
        folder,
        boards=all_boards(),
        training=source.training,
        choice=KernelChoice(),
    )
    project = load_project(folder)
    note(f"1. exported S64 for {project.board.title} to {folder}")
    verification, summary, report = _on_the_board(project, emulate, output)
    _write_page(output)
    seconds = time.monotonic() - started
    if as_json:
        print_json(
            {
                "verify": verification.to_dict(),
                "attack": summary.to_dict(),
                "bench": report.to_dict(),
                "seconds": round(seconds, 1),
            }
        )
    else:
        print_summary(summary, details=False)
        _print_cost(report, verification, project)
        note(f"{seconds:.0f} s in all; next: bnnmcu --help, or look into {folder}")
    verification.raise_if_different()


def _on_the_board(
    project: Project, emulate: str, output: Path
) -> tuple[Verification, Summary, BenchReport]:
    """Everything that happens over the serial port."""
    from bnnmcu.bench import bench
    from bnnmcu.data import load_digits
    from bnnmcu.target import TargetOptions, build_for_emulation, open_target
    from bnnmcu.toolchain.emulator import choose_emulator, open_emulator
    from bnnmcu.toolchain.pty_bridge import PtyBridge
    from bnnmcu.verify import verify

    # For one short session unicorn is the quicker one: it moves bytes faster.
    if emulate == "auto" and find_spec("unicorn") is not None:
        emulate = "unicorn"
    kind = choose_emulator(emulate, project.board)
    build = build_for_emulation(project, None, lambda line: None)
    note(
        f"2. compiled with {build.toolchain} {build.version}: {build.flash_bytes:,} bytes of flash"
    )
    digits = load_digits().stratified(_IMAGES)

    def session(options: TargetOptions, label: str) -> tuple[Verification, Summary]:
        with open_target(project, options, lambda line: None) as board:
            note(f"4. verifying over {board.device.name}")
            with show_progress() as display:
                lane = display.lane(
                    label, board=True, unit="steps", link=lambda: board.device.stats
                )
                lane.begin("verify", _IMAGES + _SEEDS)
                verification = verify(
                    project.graph,
                    board.device,
                    digits,
                    seeds=_SEEDS,
                    draws=_SEEDS,
                    seed=_SEED,
                    target=label,
                    progress=lane.advance,
                )
            note(f"5. attacking over {board.device.name}")
            return verification, _attack(project, board.device, digits, output, label)

    if os.name == "posix":
        # A real terminal device, opened by pyserial as a board's port would be.
        emulator = open_emulator(kind, build.elf, project.board)
        with PtyBridge(emulator) as bridge:
            note(f"3. the firmware runs on {emulator.name} and answers on {bridge.port}")
            results = session(TargetOptions(port=bridge.port), emulator.name)
    else:
        note(f"3. the firmware runs on {kind}, in this process (no pseudo-terminals here)")
        results = session(TargetOptions(emulate=kind), kind)
    # Counted apart, since unicorn is slow while it counts.
    with open_target(project, TargetOptions(emulate=kind, count=True), lambda line: None) as board:
        report = bench(project.plan, board, digits.stratified(1), seed=_SEED)
    return *results, report


def _attack(project: Project, device: Any, digits: Any, output: Path, label: str) -> Summary:
    from bnnmcu.attack.campaign import Campaign, campaign_identity
    from bnnmcu.attack.config import CampaignConfig
    from bnnmcu.attack.metrics import summarize
    from bnnmcu.attack.oracle import DeviceOracle
    from bnnmcu.store import Store

    attacks = make_attacks(("fgsm", "pgd"), _EPSILONS, {"eot_draws": 10})
    config = CampaignConfig(attacks=attacks, draws=_DRAWS, seed=_SEED)
    oracle = DeviceOracle(device, label="emulated")
    results = output / _RESULTS
    results.parent.mkdir(parents=True, exist_ok=True)
    # A demonstration shows the work being done: it never goes on with an old run.
    for suffix in ("", "-wal", "-shm"):
        results.with_name(results.name + suffix).unlink(missing_ok=True)
    identity = campaign_identity(config, project.graph, digits, oracle)
    with Store.open(results, identity, provenance={"command": ["demo"]}) as store:
        campaign = Campaign(config, project.graph, digits, oracle, store)
        with show_progress() as display:
            lanes = campaign_lanes(display, 1 + len(attacks), label, link=lambda: device.stats)
            campaign.run(lanes)
        return summarize(store)


def _write_page(output: Path) -> None:
    """The report of the attack, or how to get it."""
    results, page = output / _RESULTS, output / "report.html"
    if find_spec("matplotlib") is None:
        note(
            "6. no page: its charts need matplotlib (pip install 'bnnmcu[report]'; then "
            f"bnnmcu report {results} -o {page})"
        )
        return
    from bnnmcu.modelfile import atomic_write
    from bnnmcu.report.html import to_html
    from bnnmcu.report.run_page import run_page
    from bnnmcu.report.stored import read_runs

    atomic_write(page, to_html(run_page(read_runs([results]))).encode())
    note(f"6. all of it as a page: {page}")


def _print_cost(report: BenchReport, verification: Verification, project: Project) -> None:
    board = project.board
    flash, ram = report.flash or 0, report.ram or 0
    different = verification.differing_logits + verification.differing_words
    print_table(
        "What it costs, and whether it is exact",
        ["", ""],
        [
            ["flash", f"{flash:,} of {board.flash.size:,} bytes"],
            ["RAM, stack included", f"{ram:,} of {board.ram.size:,} bytes"],
            [f"{report.unit} for one image (emulated)", f"{report.total:,}"],
            ["logits held against the reference", f"{verification.logits:,}"],
            ["words of drawn weights held against the reference", f"{verification.drawn_words:,}"],
            ["of these, different", f"{different:,}"],
        ],
        caption=f"{verification.images} digits, {verification.seeds} seeds each; {report.target}, "
        f"compiled by {report.toolchain}",
    )
