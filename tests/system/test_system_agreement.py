"""``bnnmcu agreement``: tables for people, JSON for scripts, one message for a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from needs import need_digits

from bnnmcu.network import Conv, Flatten, Linear, Network, Sign
from bnnmcu.network.file import save_network

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "examples" / "models"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small network that anyone could have saved."""
    rng = np.random.default_rng(1)
    ops = (
        Conv("stem", "input", rng.normal(size=(4, 1, 5, 5)), rng.normal(size=4), (3, 3)),
        Sign("act", "stem"),
        Flatten("flat", "act"),
        Linear("head", "flat", rng.normal(size=(10, 4 * 8 * 8))),
    )
    path = tmp_path / "small.safetensors"
    save_network(path, Network("small", (1, 28, 28), ops, np.full(1, 1 / 255), np.zeros(1)))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (30, 28, 28), dtype=np.uint8)
    path = tmp_path / "noise.npz"
    np.savez(path, images=images, labels=np.arange(30) % 10)
    return path


def test_json(cli, model: Path, data: Path) -> None:
    done = cli("agreement", model, "--data", data, "-n", "20", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["model"], result["images"], result["draws"]) == ("small", 20, 1)
    (case,) = result["cases"]
    assert case["answers"] == 20
    assert {layer["layer"] for layer in case["layers"]} >= {"stem", "act", "head"}
    assert 0 < case["largest_change"] < 0.2


def test_coarser_weights_change_more(cli, model: Path, data: Path) -> None:
    changes = []
    for bits in ("8", "14"):
        done = cli("agreement", model, "--data", data, "--first-layer-bits", bits, "--json")
        case = json.loads(done.stdout)["cases"][0]
        changes.append({layer["layer"]: layer for layer in case["layers"]}["stem"]["rms"])
    assert changes[0] > 10 * changes[1] > 0


def test_tables(cli, model: Path, data: Path) -> None:
    pytest.importorskip("torch", reason="crafting needs torch")
    done = cli(
        "agreement", model, "--data", data, "-n", "10", "--attack", "fgsm", "--eps", "0.1",
        "--eps", "0.2", "--progress", "json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for word in ("same label", "largest change", "clean", "fgsm 25/255", "fgsm 51/255", "stem"):
        assert word in done.stdout
    assert '"case": "crafting fgsm 51/255"' in done.stderr


def test_noise_has_no_labels(cli, model: Path) -> None:
    done = cli("agreement", model, "--data", "noise", "-n", "7", "--json")
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(done.stdout)["cases"]
    assert (case["answers"], case["float_error"], case["integer_error"]) == (7, None, None)
    done = cli("agreement", model, "--data", "noise", "-n", "7")
    assert done.returncode == 0, done.stderr
    assert "None" not in done.stdout


def test_of_a_shipped_network(cli) -> None:
    """Drawn weights; labels may only differ where the float network was undecided."""
    need_digits()
    pytest.importorskip("torch", reason="torch reads the shipped .pt files")
    done = cli("agreement", MODELS / "s64.pt", "-n", "20", "--draws", "2", "--json")
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(done.stdout)["cases"]
    assert case["answers"] == 40
    assert case["same_label"] > 0.9
    assert case["mean_change"] < 0.01
    signs = [layer for layer in case["layers"] if layer["kind"] == "signs"]
    assert [layer["layer"] for layer in signs] == ["sign2", "sign3"]
    assert all(layer["differing"] < 0.002 for layer in signs)


def test_refusals(cli, model: Path, data: Path, tmp_path: Path) -> None:
    cases: list[tuple[list[str | Path], int, list[str]]] = [
        ([tmp_path], 2, ["integer network only", "model file"]),
        (["gone.pt"], 3, ["no such file"]),
        ([model, "--data", data, "--eps", "2"], 2, ["--eps"]),
        ([model, "--data", tmp_path / "none.npz"], 12, ["none.npz"]),
        ([model, "--data", "noise", "--attack", "fgsm"], 2, ["no labels"]),
        ([model, "--data", data, "--mean", "0.5"], 2, ["--mean"]),
        ([model, "--data", data, "-n", "31"], 12, ["30"]),
    ]
    for arguments, code, words in cases:
        done = cli("agreement", *arguments)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        for word in words:
            assert word in done.stderr
