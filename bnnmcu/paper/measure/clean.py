"""Error on clean images (table 6, and the errors of S in table 3).

All test images; of S the mean over 20 passes with fresh draws for every image,
as the paper's S is drawn anew in every pass (section 3; it gives one number and
does not say of how many passes).  Beside it the error by majority vote and its
spread over draws, and that of the deterministic twin sign(w), which costs the
same and, if it is lower, is what S has to be held against.
"""

from __future__ import annotations

from bnnmcu.attack.config import AttackConfig
from bnnmcu.evaluate import evaluate
from bnnmcu.paper.jobs import JSON, Job, Value
from bnnmcu.paper.measure.setup import Setup, answered, selected
from bnnmcu.paper.measure.subject import of_network, without_chance

__all__ = ["DEFAULTS", "attacks", "run"]

DEFAULTS: dict[str, JSON] = {"images": None, "draws": 20}


def attacks(job: Job) -> tuple[AttackConfig, ...]:
    """None."""
    return ()


def run(setup: Setup) -> dict[str, Value]:
    """Shares of wrong labels.

    Values: ``error`` (mean over images and draws), ``error_sd_draws`` (standard
    deviation of the error of one draw of every image; 0 without draws),
    ``majority_error``, ``worst_error`` (some draw is wrong), ``twin_error`` (of
    sign(w); None without draws), ``images``, ``draws``.
    """
    data = selected(setup.test, setup.setting("images"))
    graph = setup.subject.graph
    if graph is None:
        error = 1.0 - answered(setup, (), data, chunk=100).case(None).mean.value
        return {
            "error": error,
            "error_sd_draws": 0.0,
            "majority_error": error,
            "worst_error": error,
            "twin_error": None,
            "images": len(data),
            "draws": 1,
        }
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        setup.report("asking clean", done, len(data))

    seed = setup.job.whole("seed")
    found = evaluate(graph, data, draws=setup.job.whole("draws"), seed=seed, progress=progress)
    twin = None
    if setup.subject.stochastic:
        plain = of_network(without_chance(setup.subject.network)).graph
        assert plain is not None
        twin = evaluate(plain, data, seed=seed).error
    return {
        "error": found.error,
        "error_sd_draws": found.spread,
        "majority_error": found.majority_error,
        "worst_error": found.worst_error,
        "twin_error": twin,
        "images": found.images,
        "draws": found.draws,
    }
