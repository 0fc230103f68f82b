"""Figures: what their jobs are, what they draw from which records, and the same bytes each time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.data import Dataset
from bnnmcu.errors import MissingDependencyError, StoreError, UsageError
from bnnmcu.paper.figures import figure2, figure5
from bnnmcu.paper.figures.catalogue import FIGURES, draw
from bnnmcu.paper.figures.spec import FigureJob, Wanted
from bnnmcu.paper.jobs import Job, Value
from bnnmcu.paper.measure import job, run
from bnnmcu.paper.published import published
from bnnmcu.paper.recipes import Trainable
from bnnmcu.paper.record import Record
from bnnmcu.paper.toy import ToyJob, ToyNet, toy_points, train_toy
from bnnmcu.report.charts import style

TEST_SHA = "ab" * 32


def record(of: FigureJob, values: dict[str, Value], **changes: Any) -> Record:
    """A record of a job, through the check that every stored one passes."""
    name, sha = "MNIST test", TEST_SHA
    if isinstance(of, ToyJob):
        name, sha = toy_points().name, toy_points().sha256()
    made = Record(
        id=of.id(name, sha),
        what=of.what(),
        data_name=name,
        data_sha256=sha,
        data_images=10_000,
        values=values,
        model_sha256="cd" * 32,
        graph_sha256=None,
        training_seconds=None,
        measuring_seconds=1.0,
        device="cpu",
        versions={"bnnmcu": "1", "torch": None, "numpy": "2", "python": "3"},
        machine="test",
        made_at="2026-01-01T00:00:00Z",
        command="bnnmcu paper figure2",
    )
    return Record.from_dict(replace(made, **changes).to_dict(), "test", "none")


def cw(kind: str, iterations: int, accuracy: float, **more: Any) -> Record:
    """CW-L2 in table 3's setting: accuracy +- 0.05, pairs 990."""
    values = {"accuracy": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05}
    settings = {"preset": "paper", "iterations": iterations, **more.pop("settings", {})}
    what = job(Trainable(kind, **{"filters": 64, **more}), "cw", **settings)
    return record(what, {**values, "pairs": settings.get("pairs", 990)})


@pytest.fixture(scope="module")
def toys() -> list[Record]:
    """The drawn networks of figures 3 and 4, briefly trained."""
    found = []
    for hidden in (2, 4):
        for quantized in (False, True):
            for seed in (2, 1):
                made = ToyJob(hidden, quantized, seed, epochs=40)
                net, measured = train_toy(made)
                found.append(record(made, dict(measured.values), model_sha256=net.sha256()))
    return found


def logits_records() -> list[Record]:
    """Figure 5's, of invented curves: B is wrong from 0 on, A never."""
    epsilon = [one / 10 for one in range(-3, 4)]
    found = []
    for kind in "AB":
        values: dict[str, Value] = {"epsilon": epsilon, "label": 1, "prediction": 1, "image": 2}
        for temperature in ("0.1", "0.6", "0.7", "1"):
            values |= {f"logits@{temperature}/{klass}": [0.0] * 7 for klass in range(10)}
            values[f"logits@{temperature}/1"] = [1.0] * 7
            values[f"logits@{temperature}/7"] = [2.0 if kind == "B" else 0.5] * 7
            values |= {f"zero@{temperature}": 0.25, f"as_at_1@{temperature}": 1.0}
        found.append(record(job(Trainable(kind, 64), "logits"), values))
    return found


def test_figure2_has_the_jobs_of_table_3() -> None:
    jobs = FIGURES["figure2"].jobs(Wanted(seeds=(1, 2), recipes=("best",)))
    assert len(jobs) == len(set(jobs)) == 8 * 2 * 5
    of = {(one.trainable, one.setting("iterations")): one for one in jobs if isinstance(one, Job)}
    b64 = Trainable("B", 64)
    assert of[b64, 100] == job(b64, "cw", preset="paper", pairs=990)
    assert of[b64, 1000] == job(b64, "cw", preset="paper", iterations=1000, pairs=200)
    assert {one.setting("preset") for one in of.values()} == {"paper"}


def test_a_point_is_of_its_seeds_and_of_nothing_else() -> None:
    one, two = cw("B", 100, 0.1), cw("B", 100, 0.3, seed=2)
    strangers = [
        cw("B", 100, 0.9, settings={"pairs": 90}),  # fewer pairs: not mixed in
        cw("B", 100, 0.9, recipe="paper"),
        cw("B", 100, 0.9, regimen="fgsm"),
        cw("B", 100, 0.9, settings={"preset": "adaptive"}),
        cw("B", 100, 0.9, settings={"draws": 5}),
        cw("S", 100, 0.9, form="frozen"),
    ]
    (curve,) = [x for x in figure2.curves([*strangers, two, one]) if x.recipe == "best"]
    (point,) = curve.points
    assert curve.ids == (one.id, two.id)
    assert (point.seeds, point.pairs) == (2, 990)
    assert point.mean == pytest.approx(20)
    assert point.high - point.mean == pytest.approx(100 * math.sqrt(0.02))
    # A single seed shows the interval over its pairs.
    (single,) = figure2.curves([one])[0].points
    assert (single.low, single.high) == pytest.approx((5, 15))


def test_points_come_in_order_and_stay_within_percent() -> None:
    found = figure2.curves([cw("C", 1000, 0.0), cw("C", 10, 0.99), cw("C", 10, 1.0, seed=2)])
    assert [point.iterations for point in found[0].points] == [10, 1000]
    assert [point.high for point in found[0].points] == [100.0, pytest.approx(5)]
    assert found[0].points[1].low == 0.0


@pytest.mark.parametrize("quantized", [False, True])
def test_surface_is_what_torch_says(quantized: bool) -> None:
    torch = pytest.importorskip("torch")
    from bnnmcu.nn.functional import binarize

    rng = np.random.default_rng(3)
    shapes = ((3, 2), (3, 3), (1, 3))
    w1, w2, w3 = (3 * rng.normal(size=shape) for shape in shapes)
    b1, b2, b3 = (rng.normal(size=shape[0]) for shape in shapes)
    net = ToyNet(quantized, (w1, w2, w3), (b1, b2, b3))
    points = rng.random((50, 2))
    x = torch.from_numpy(points.copy()).requires_grad_()
    t = {
        name: torch.from_numpy(one)
        for name, one in zip("abcdef", (w1, b1, w2, b2, w3, b3), strict=True)
    }
    value = torch.sigmoid(x @ t["a"].T + t["b"])
    if quantized:
        value = binarize(value @ binarize(t["c"], "identity").T + t["d"], "identity")
    else:
        value = torch.sigmoid(value @ t["c"].T + t["d"])
    output = torch.sigmoid(value @ t["e"].T + t["f"])[:, 0]
    output.sum().backward()
    surface = net.surface(points)
    np.testing.assert_allclose(surface.output, output.detach().numpy(), atol=1e-12)
    assert np.abs(surface.slope).max() > 1e-3
    np.testing.assert_allclose(surface.slope, x.grad.numpy(), atol=1e-12)


def test_toy_learns_and_follows_from_its_seed() -> None:
    pytest.importorskip("torch")
    net, measured = train_toy(ToyJob(2, True, 1, epochs=300))
    again, _ = train_toy(ToyJob(2, True, 1, epochs=300))
    other, _ = train_toy(ToyJob(2, True, 2, epochs=300))
    assert measured.values["cases"] == 4
    assert net.sha256() == again.sha256() != other.sha256()
    stored = ToyNet.from_values(measured.values, 2, quantized=True, where="x")
    assert stored.sha256() == net.sha256()
    points = toy_points()
    inside = (points.images.reshape(-1, 2) / 255 > 0.5).all(axis=1)
    assert (points.labels == inside).all()
    assert 200 < inside.sum() < 300


def test_toy_jobs_are_told_apart() -> None:
    points = toy_points()
    jobs = [ToyJob(2, False), ToyJob(2, True), ToyJob(4, True), ToyJob(2, True, 2)]
    jobs.append(ToyJob(2, True, epochs=999))
    assert len({one.id_on(points) for one in jobs}) == len({one.key for one in jobs[:4]}) + 1
    with pytest.raises(UsageError, match="out of range"):
        ToyJob(0, True)


def _damaged(records: Sequence[Record], name: str, value: Value) -> list[Record]:
    return [replace(one, values={**one.values, name: value}) for one in records]


@pytest.mark.parametrize("value", [None, 3.0, [1.0]])
def test_weights_of_a_record_are_checked(toys: list[Record], tmp_path: Path, value: Value) -> None:
    with pytest.raises(StoreError, match=r"weight2 .* no list of 4 numbers"):
        draw(["figure3"], _damaged(toys, "weight2", value), tmp_path)


def test_curves_of_a_record_are_checked() -> None:
    first, second = logits_records()
    for broken in ([1.0], "x", [1.0] * 6):
        with pytest.raises(StoreError, match="curve"):
            figure5.curves(_damaged([first], "logits@0.6/3", broken)[0], 0.6)
    assert figure5.curves(second, 0.6)[1].shape == (7, 10)


def test_every_figure_is_drawn_twice_the_same(toys: list[Record], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    import matplotlib

    records = [*toys, *logits_records(), cw("A", 10, 0.5), cw("S", 100, 0.6), cw("A", 100, 0.1)]
    first = draw(FIGURES, records, tmp_path / "a")
    with matplotlib.rc_context({"lines.linewidth": 9, "svg.hashsalt": "other"}):
        again = ["figure2", "figure3", "figure5"]
        second = draw(again, list(reversed(records)), tmp_path / "b")
    assert [one.name for one in first] == ["figure2", "figure3", "figure4", "figure5"]
    shown = {"figure2": 3, "figure3": 4, "figure4": 4, "figure5": 2}
    for one in first:
        assert len(one.ids) == len(set(one.ids)) == shown[one.name]
        assert set(one.ids) <= {entry.id for entry in records}
    by_name = {one.name: one for one in first}
    for two in second:
        one = by_name[two.name]
        assert (one.ids, one.note) == (two.ids, two.note)
        for a, b in ((one.svg, two.svg), (one.png, two.png)):
            assert a is not None
            assert b is not None
            assert a.read_bytes() == b.read_bytes()
            assert len(a.read_bytes()) > 5_000
        assert one.svg is not None
        text = one.svg.read_text(encoding="utf-8")
        assert "<dc:date>" not in text
        assert not re.search(r"href=\"http", text)
    notes = {name: one.note for name, one in by_name.items()}
    assert "990" in notes["figure2"]
    assert "of 2 seeds" in notes["figure4"]
    assert "seed 1, which is drawn" in notes["figure4"]
    assert "test image 2" in notes["figure5"]
    assert "75 % of the pixels have a direction" in notes["figure5"]


def test_nothing_measured_is_nothing_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    only_b = [one for one in logits_records() if one.name == "B64"]
    for one in draw(FIGURES, only_b, tmp_path / "none"):
        assert (one.svg, one.png, one.ids) == (None, None, ())
        assert one.caption
    assert not (tmp_path / "none").exists()
    with pytest.raises(UsageError, match="unknown figure 'figure1'"):
        draw(["figure1"], [], tmp_path)


def test_without_matplotlib_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"bnnmcu\[report\]"), style.styled():
        pass


def test_the_papers_points_are_there() -> None:
    # What figure 2 marks: a renamed column would silently leave them out.
    assert published("table3", "S64", "accuracy") is not None
    assert published("table3", "S64", "accuracy at 1000") is not None


@pytest.mark.parametrize("kind", ["A", "B"])
def test_logits_are_those_of_the_network(kind: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from bnnmcu import reference
    from bnnmcu.compiler import compile_file
    from bnnmcu.nn.paper import build
    from bnnmcu.nn.training import save_net

    trainable = Trainable(kind, 4)
    path = tmp_path / "net.pt"
    net = build(trainable.network(), seed=5)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)
    with torch.no_grad():
        if kind == "B":
            # Its activations are signs around the mean, and there are means only after a batch.
            net.norm2.momentum = net.norm3.momentum = 1.0
            net(torch.from_numpy(images.astype(np.float32) / 255).permute(0, 3, 1, 2))
        # Else the softmax may have no gradient at all.
        net.dense.weight *= 0.05
    save_net(path, net.eval())
    test = Dataset("noise", images, np.array([0, 1, 1]))
    what = job(trainable, "logits", levels=8, step=4, temperatures=[0.5, 1.0])
    measured = run(what, model=path, test=test, work=tmp_path)
    values = measured.values
    assert (values["image"], values["label"], values["as_at_1@1"]) == (1, 1, 1.0)
    assert values["epsilon"] == pytest.approx([-8 / 255, -4 / 255, 0, 4 / 255, 8 / 255], abs=1e-6)
    assert (measured.graph_sha256 is None) == (kind == "A")
    if kind == "A":
        x = torch.from_numpy(images[1:2].astype(np.float32) / 255).permute(0, 3, 1, 2)
        expected = net(x).detach().numpy()[0]
    else:
        graph = compile_file(path).graph
        seeds = np.zeros((1, 1), dtype=np.uint64)
        expected = reference.run(graph, images[1:2], seeds)[0, 0] * graph.logit_scale
    own = values["prediction"]
    assert own == int(expected.argmax())
    for temperature in ("0.5", "1"):
        curves = np.array([values[f"logits@{temperature}/{klass}"] for klass in range(10)])
        np.testing.assert_allclose(curves[:, 2], expected, atol=1e-4)
        # Each way along the gradient of the own label's loss.
        assert np.abs(curves[:, 4] - curves[:, 0]).max() > 1e-3
    if kind == "A":
        lead = curves[own] - np.delete(curves, own, 0).max(axis=0)
        assert lead[0] > lead[2] > lead[4]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"levels": 256}, "divisor"),
        ({"levels": 10, "step": 4}, "divisor"),
        ({"estimator": "magic"}, "unknown estimator"),
        ({"temperatures": [0.0]}, "temperature"),
        ({"label": -1}, "label"),
    ],
)
def test_settings_of_logits_are_checked(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        job(Trainable("B", 4), "logits", **settings)
