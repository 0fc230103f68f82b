"""From a trained model to a report, in Python: what 'make demo' does, step by step.

pip install 'bnnmcu[attack,sim,digits,report]'
python examples/quickstart.py
"""

from __future__ import annotations

from pathlib import Path

from bnnmcu.attack.campaign import Campaign, campaign_identity
from bnnmcu.attack.config import CampaignConfig, FgsmConfig, PgdConfig
from bnnmcu.attack.oracle import DeviceOracle
from bnnmcu.backend.choice import KernelChoice
from bnnmcu.backend.project import load_project, write_project
from bnnmcu.boards import all_boards, load_board
from bnnmcu.compiler import read_source
from bnnmcu.data import load_digits
from bnnmcu.passes import lower
from bnnmcu.report.html import to_html
from bnnmcu.report.run_page import run_page, verdict
from bnnmcu.report.stored import read_run
from bnnmcu.resources import model_path
from bnnmcu.store import Store
from bnnmcu.target import TargetOptions, open_target
from bnnmcu.verify import verify

FOLDER, IMAGES = Path("quickstart"), 10


def main() -> None:
    """Export, verify, attack, report."""
    # A model file becomes a float network, and that an integer graph: the contract.
    with model_path("s64.pt") as path:
        source = read_source(path)
    graph = lower(source.network).graph

    # The graph becomes C for one board. Nothing is compiled yet, and memory is known already.
    _, memory = write_project(
        graph,
        load_board("nucleo_f446re"),
        FOLDER,
        boards=all_boards(),
        training=source.training,
        choice=KernelChoice(),
    )
    print(f"flash {memory.flash:,} and RAM {memory.ram:,} bytes, predicted")
    project = load_project(FOLDER)

    # The firmware, compiled and emulated; TargetOptions(port="auto") would be a real board.
    digits = load_digits().stratified(IMAGES)
    results = FOLDER / "results" / "attack.sqlite"
    results.parent.mkdir(exist_ok=True)
    with open_target(project, TargetOptions(emulate="auto"), print) as board:
        found = verify(graph, board.device, digits, seeds=2, draws=2, seed=1, target=board.label)
        found.raise_if_different()
        print(f"{found.logits:,} logits are those of the reference, on {board.label}")

        # Crafted here, judged there; what is stored is never asked again.
        attacks = (FgsmConfig(epsilon=0.1), PgdConfig(epsilon=0.1), PgdConfig(epsilon=0.2))
        config = CampaignConfig(attacks=attacks, draws=5, seed=1)
        oracle = DeviceOracle(board.device, label="emulated")
        identity = campaign_identity(config, graph, digits, oracle)
        with Store.open(results, identity, provenance={}) as store:
            Campaign(config, graph, digits, oracle, store).run()

    run = read_run(results)
    page = FOLDER / "report.html"
    page.write_text(to_html(run_page([run])), encoding="utf-8")
    print(f"{verdict([run]).text}\nwritten: {page}")


if __name__ == "__main__":
    main()
