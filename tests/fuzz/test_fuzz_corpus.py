"""The corpus through the harnesses, built by any compiler with its sanitizers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from harnesses import APP, HARNESSES, Harness, compile_harness, compile_network  # noqa: E402
from model import write_model  # noqa: E402
from seeds import write_seeds  # noqa: E402

_BY_NAME = {harness.name: harness for harness in HARNESSES}
Build = Callable[..., Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("gcc or clang with sanitizers on Linux builds the harnesses")
    folder = tmp_path_factory.mktemp("fuzz")
    write_model(folder / "model")
    compile_network(folder / "model", [compiler], fuzzer=False)
    write_seeds(folder / "seeds")

    def compiled(harness: Harness, instead: Path | None = None) -> Path:
        out = folder / (
            harness.name if instead is None else f"{harness.name}-{instead.parent.name}"
        )
        if not out.exists():
            files = {} if instead is None else {instead.name: instead}
            compile_harness(
                harness, folder / "model", out, [compiler], fuzzer=False, sources_instead=files
            )
        return out

    return compiled


def _replay(program: Path, inputs: list[Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *map(str, inputs)], capture_output=True, text=True, timeout=250, check=False
    )


def _inputs(harness: Harness, program: Path) -> list[Path]:
    """The corpus, and the seeds beside a program."""
    folders = (HERE / "corpus", program.parent / "seeds")
    return [path for folder in folders for path in sorted((folder / harness.corpus).iterdir())]


@pytest.mark.parametrize("name", _BY_NAME)
def test_no_input_of_the_corpus_breaks_anything(build: Build, name: str) -> None:
    harness = _BY_NAME[name]
    program = build(harness)
    inputs = _inputs(harness, program)
    assert len(inputs) > 20
    done = _replay(program, inputs)
    assert done.returncode == 0, done.stdout.splitlines()[-1:] + done.stderr.splitlines()[:20]
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(inputs)


#: Defects that somebody might bring in, each found by corpus and seeds: a source, a line of it,
#: and what stands there instead.
DEFECTS = {
    "frame": [
        ("bnn_frame.c", "decoder->size >= decoder->capacity", "decoder->size > decoder->capacity"),
        ("bnn_frame.c", "frame->crc != bnn_crc32", "0 && frame->crc != bnn_crc32"),
    ],
    "server_field": [
        ("bnn_field.c", "state.next += count;", ";"),
        ("bnn_server_field.c", "if (state.size != 0 &&", "if (0 &&"),
    ],
    "mlperf_fake": [
        ("bnn_mlperf.c", "next_seed++;", ";"),
        ("bnn_mlperf.c", "command_size == COMMAND_MOST", "command_size == COMMAND_MOST + 1u"),
    ],
}


@pytest.mark.parametrize(
    ("name", "defect"),
    [(name, i) for name, found in DEFECTS.items() for i in range(len(found))],
)
def test_a_defect_is_noticed(build: Build, tmp_path: Path, name: str, defect: int) -> None:
    source, line, instead = DEFECTS[name][defect]
    harness = _BY_NAME[name]
    text = (APP / source).read_text()
    assert text.count(line) == 1
    spoiled = tmp_path / source
    spoiled.write_text(text.replace(line, instead))
    program = build(harness, spoiled)
    assert _replay(program, _inputs(harness, program)).returncode != 0
