"""Equal logits, and losses that have nothing left to gain: neither is a network that resists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bnnmcu.attack.config import PRESETS, ApgdConfig, CwConfig, FgsmConfig, JsmaConfig, PgdConfig
from bnnmcu.errors import UsageError

torch = pytest.importorskip("torch", reason="crafting needs torch")

from bnnmcu.attack.craft import craft  # noqa: E402
from bnnmcu.attack.square import _margins  # noqa: E402
from tests.support.formula_model import FormulaModel  # noqa: E402

IMAGE = np.full((1, 2, 2, 1), 128, dtype=np.uint8)


def equal(x: Any, _: Any) -> Any:
    """All logits are zero, as of a network whose last ReLUs are dead."""
    return 0.0 * x.flatten(1).sum(1)[:, None].expand(-1, 4)


@pytest.mark.parametrize(
    "attack",
    [
        CwConfig(iterations=3, judge="step"), CwConfig(iterations=10, judge="fresh"),
        JsmaConfig(), PgdConfig(epsilon=0.1, steps=2), ApgdConfig(epsilon=0.1, steps=8),
    ],
    ids=lambda attack: f"{attack.kind}-{getattr(attack, 'judge', '')}",
)  # fmt: skip
@pytest.mark.parametrize(
    ("label", "target", "fooled"), [(1, 0, True), (0, 1, False), (1, None, True), (0, None, False)]
)
def test_the_first_of_equals_is_the_answer(
    attack: Any, label: int, target: int | None, fooled: bool
) -> None:
    model = FormulaModel((2, 2, 1), equal, classes=4)
    targets = None if target is None else np.array([target])
    made = craft(model, attack, IMAGE, np.array([label]), 1, targets=targets)
    assert made.details[0]["success_after"] == float(fooled)
    if "found" in made.details[0]:
        assert made.details[0]["found"] is fooled


class Scores:
    """Answers everything with the same."""

    def __init__(self, *scores: float) -> None:
        self.row = np.array([scores], dtype=np.float64)

    def scores(self, images: Any, index: Any) -> Any:
        return self.row.copy()


@pytest.mark.parametrize(
    ("scores", "wanted", "targeted", "fooled"),
    [
        ((3, 3, 1), 1, False, True), ((3, 3, 1), 0, False, False), ((3, 3, 1), 0, True, True),
        ((3, 3, 1), 1, True, False), ((3, 1, 1), 2, True, False), ((3, 1, 1), 2, False, True),
    ],
)  # fmt: skip
def test_scores_are_read_likewise(
    scores: tuple[float, ...], wanted: int, targeted: bool, fooled: bool
) -> None:
    query: Any = Scores(*scores)
    index = np.zeros(1, dtype=np.int64)
    margin = _margins(query, IMAGE, index, np.array([wanted]), targeted)
    assert bool(margin[0] < 0) is fooled


def brightness(x: Any, _: Any) -> Any:
    """Class 1 from the middle on, sure beyond what a softmax in floats can tell from certainty."""
    bright = 1e4 * (x.flatten(1).mean(1) - 0.4)
    return torch.stack([-bright, bright, 0 * bright, 0 * bright], -1)


@pytest.mark.parametrize("kind", [FgsmConfig, PgdConfig, ApgdConfig])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_a_target_that_is_reached_needs_no_gradient(kind: Any, loss: Any) -> None:
    model = FormulaModel((2, 2, 1), brightness, classes=4)
    attack = kind(epsilon=0.01, loss=loss)
    made = craft(model, attack, IMAGE, np.array([0]), 1, targets=np.array([1]))
    assert made.zero_gradients[0] == 0
    if loss == "ce" and kind is not FgsmConfig:
        # To be left, the same certainty is a masked gradient.
        made = craft(model, attack, IMAGE, np.array([1]), 1)
        assert made.zero_gradients[0] > 0


def test_an_option_that_means_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        PgdConfig(epsilon=0.1, loss="dlr", losses=("ce", "margin"))
    with pytest.raises(UsageError, match="exclude each other"):
        PgdConfig(epsilon=0.1, temperature=4.0, temperatures=(1.0, 10.0))
    with pytest.raises(UsageError, match="tries several losses"):
        PRESETS["autoattack-rand"](epsilon=0.1, loss="ce")
    with pytest.raises(UsageError, match="in pairs"):
        craft(
            FormulaModel((1, 1, 1), equal, classes=4),
            JsmaConfig(),
            np.zeros((1, 1, 1, 1), np.uint8),
            np.array([0]),
            1,
            targets=np.array([1]),
        )
