"""An installed wheel has all it needs: templates, boards, the shipped network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bnnmcu.modelfile import read_model, write_model

pytest.importorskip("build", reason="the package 'build' makes the wheel")
pytest.importorskip("hatchling", reason="the build backend")
ROOT = Path(__file__).resolve().parents[2]


def _run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    # Nothing of this environment may help the one under test.
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [*map(str, command)],
        cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an empty environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("wheel")
    made = _run(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, ROOT, cwd=folder
    )
    assert made.returncode == 0, made.stderr
    (wheel,) = folder.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "bnnmcu/_resources/boards/nucleo_f446re.toml" in names
    assert not [name for name in names if name.startswith("tests/")]
    venv = folder / "venv"
    made = _run(sys.executable, "-m", "venv", venv, cwd=folder)
    if made.returncode != 0:
        pytest.skip(f"no virtual environment can be made here: {made.stderr[-200:]}")
    binaries = venv / ("Scripts" if os.name == "nt" else "bin")
    done = _run(
        binaries / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel,
        cwd=folder,
    )  # fmt: skip
    if done.returncode != 0 and "No matching distribution" in done.stderr:
        pytest.skip("the wheel's dependencies cannot be downloaded here")
    assert done.returncode == 0, done.stderr
    return binaries


def test_it_exports_without_torch_or_checkout(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch converts the shipped .pt file")
    model = read_model(ROOT / "examples" / "models" / "s64.pt")
    write_model(tmp_path / "s64.safetensors", model.manifest, model.tensors)
    done = _run(
        installed / "bnnmcu", "export", "s64.safetensors", "--board", "nucleo_f446", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / json.loads(done.stdout)["folder"]
    assert (folder / "src" / "bnn_model.c").is_file()
    assert (folder / "src" / "bnn_port_cortexm.c").is_file()
    assert (folder / "platformio.ini").is_file()
    done = _run(
        installed / "bnnmcu", "export", "s64.safetensors", "--format", "library", "-o", "library",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "library" / "src" / "bnn_predict.h").is_file()


def test_missing_extras_are_named(installed: Path, tmp_path: Path) -> None:
    model = ROOT / "examples" / "models" / "s64.pt"
    done = _run(installed / "bnnmcu", "export", model, "--board", "nucleo_f446", cwd=tmp_path)
    assert done.returncode == 9
    assert "pip install 'bnnmcu[train]'" in done.stderr
    done = _run(installed / "bnnmcu", "evaluate", model, cwd=tmp_path)
    assert done.returncode == 9
