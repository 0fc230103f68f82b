"""Every example does what its first lines promise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.brevitas_net import need_brevitas
from tests.support.needs import need_digits, need_toolchain

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
_FASHION = Path("/usr/share/datasets/fashion-mnist")


def _run(folder: Path, *words: str, code: int = 0) -> str:
    found = subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert found.returncode == code, f"{words}\n{found.stdout}\n{found.stderr}"
    return found.stdout + found.stderr


def _python(folder: Path, name: str, *words: str, code: int = 0) -> str:
    return _run(folder, sys.executable, str(EXAMPLES / name), *words, code=code)


def _bnnmcu(folder: Path, *words: str) -> str:
    return _run(folder, sys.executable, "-m", "bnnmcu", *words)


def test_quickstart(tmp_path: Path) -> None:
    need_digits()
    need_toolchain("zig")
    pytest.importorskip("matplotlib")
    said = _python(tmp_path, "quickstart.py")
    assert "logits are those of the reference, on" in said
    assert "(emulated)" in said
    page = (tmp_path / "quickstart" / "report.html").read_text(encoding="utf-8")
    assert "pgd" in page


def test_gestures(tmp_path: Path) -> None:
    need_toolchain("zig")
    said = _python(tmp_path, "gestures.py")
    assert "synthetic" in said
    assert "Warning" not in said
    verified = ("verify", "gestures", "--emulate", "--data", "gestures.npz", "-n", "4")
    _bnnmcu(tmp_path, *verified)
    question = ("evaluate", "gestures.safetensors", "--data", "gestures.npz", "--json", "--quiet")
    shown = json.loads(_bnnmcu(tmp_path, *question))
    # The float network's own figure, which is printed, and the integer one's agree.
    float_error = 1 - float(said.split(" %")[0].split()[-1]) / 100
    assert abs(shown["error"] - float_error) <= 0.02


def test_custom_style(tmp_path: Path) -> None:
    said = _python(tmp_path, "custom_style.py")
    assert "were recognised" in said
    assert "softplus" in said
    shown = _bnnmcu(tmp_path, "inspect", "custom.safetensors")
    assert "BinaryConv" in shown
    assert not (tmp_path / "refused.safetensors").exists()


def test_brevitas(tmp_path: Path) -> None:
    need_brevitas()
    need_toolchain("zig")
    _python(tmp_path, "brevitas_import.py")
    _bnnmcu(
        *(tmp_path, "export", "brevitas.onnx", "--board", "nucleo_f446", "-o", "brevitas"),
        *("--mean", "0.2", "--std", "0.5"),
    )
    assert "BinaryConv" in _bnnmcu(tmp_path, "inspect", "brevitas")
    _bnnmcu(tmp_path, "verify", "brevitas", "--emulate", "--data", "noise", "-n", "3")


def test_fashion_mnist_says_what_is_missing(tmp_path: Path) -> None:
    said = _python(tmp_path, "fashion_mnist.py", "--data", str(tmp_path), code=1)
    assert "dataset-fashion-mnist" in said
    assert "Traceback" not in said


def test_fashion_mnist(tmp_path: Path) -> None:
    if not _FASHION.is_dir():
        pytest.skip("Fashion-MNIST is not installed (apt-get install dataset-fashion-mnist)")
    said = _python(tmp_path, "fashion_mnist.py", "--epochs", "1", "--images", "6000")
    errors = [float(line.split(" %")[0]) for line in said.splitlines() if " % " in line]
    assert len(errors) == 2
    assert max(errors) < 30
    assert abs(errors[0] - errors[1]) < 0.5


def test_bare_cmake(tmp_path: Path) -> None:
    pytest.importorskip("cmake")
    need_toolchain("gcc")
    emulator = shutil.which("qemu-system-arm")
    if emulator is None:
        pytest.skip("qemu-system-arm is not installed")
    cmake = str(Path(sys.executable).parent / "cmake")
    model = str(EXAMPLES / "models" / "b64.pt")
    source = EXAMPLES / "bare_cmake"
    _bnnmcu(tmp_path, "export", model, "--format", "library", "-o", "digits")
    _run(
        *(tmp_path, cmake, "-S", str(source), "-B", "bare", f"-DNETWORK={tmp_path / 'digits'}"),
        f"-DCMAKE_TOOLCHAIN_FILE={source / 'arm-none-eabi.cmake'}",
    )
    _run(tmp_path, cmake, "--build", "bare")
    said = _run(
        *(tmp_path, emulator, "-M", "mps2-an386", "-semihosting", "-display", "none"),
        *("-kernel", "bare/firmware"),
    )
    assert "self-test: the logits are those of the reference" in said
    assert "the drawing is taken for a 7" in said
    refused = _run(tmp_path, cmake, "-S", str(source), "-B", "other", code=1)
    assert "--format library" in refused


def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_digits()
    pytest.importorskip("matplotlib")
    notebook = json.loads((EXAMPLES / "tour.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec("".join(cell["source"]), names)
    assert names["figure"] is not None
    assert (tmp_path / "tour.sqlite").is_file()


def test_the_readme_names_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        if path.name.startswith(("_", ".")):
            # What Python and editors leave there.
            continue
        assert f"`{path.name}" in text, path.name
