"""examples/minimal_client.py: short, independent, and understood by the firmware."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from needs import need_digits, need_emulator

from bnnmcu import reference
from bnnmcu.backend.project import load_project
from bnnmcu.data import load_digits
from bnnmcu.target import build_for_emulation
from bnnmcu.toolchain.emulator import open_emulator
from bnnmcu.toolchain.pty_bridge import PtyBridge

_CLIENT = Path(__file__).resolve().parents[2] / "examples" / "minimal_client.py"


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(_CLIENT), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_it_is_short_and_has_nothing_of_bnnmcu() -> None:
    source = _CLIENT.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 150
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(str(node.module).split(".")[0])
    assert modules - {"serial"} <= sys.stdlib_module_names


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
def test_the_firmware_answers_it(shipped: Callable[[str], Path], tmp_path: Path) -> None:
    need_digits()
    need_emulator("unicorn")
    project = load_project(shipped("s64"))
    image, seeds = load_digits().stratified(3).images[2], (7, 0, 2**64 - 1)
    pgm = tmp_path / "digit.pgm"
    pgm.write_bytes(b"P5\n28 28\n255\n" + image.tobytes())
    build = build_for_emulation(project, None, lambda line: None)
    with PtyBridge(open_emulator("unicorn", build.elf, project.board)) as bridge:
        done = _run(bridge.port, "--image", pgm, "--seeds", *map(str, seeds))
        refused = _run(bridge.port, "--image", _CLIENT)
    assert done.returncode == 0, done.stderr
    shown = re.findall(r"^seed (\d+): logits \[(.*)\]$", done.stdout, flags=re.MULTILINE)
    drawn = reference.run(project.graph, image[np.newaxis], np.array([seeds], dtype=np.uint64))
    assert [int(seed) for seed, _ in shown] == list(seeds)
    logits = [[int(x) for x in row.split(",")] for _, row in shown]
    assert logits == drawn[0].tolist()
    assert f"label {int(drawn[0].sum(axis=0).argmax())}" in done.stdout
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert "Traceback" not in refused.stderr
