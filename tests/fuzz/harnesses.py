"""Builds the harnesses: which sources, which defines, for libFuzzer or with a plain main()."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model import MODEL_BYTES, MODEL_CLASSES

__all__ = ["APP", "HARNESSES", "Harness", "compile_harness", "compile_network"]

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
APP = REPO / "firmware_templates" / "app"
PORT = REPO / "firmware_templates" / "port"
FAKE = REPO / "tests" / "c" / "fake"

FLAGS = ("-std=c99", "-g", "-Wall", "-Wextra", "-Wconversion", "-Werror")
SANITIZE = "address,undefined"
#: Of the app: what is no part of any firmware's server, or belongs to another server.
_OTHERS = {"bnn_native.c"}
#: What field mode has more, and what it has another one of.
_FIELD, _NOT_FIELD = {"bnn_field.c", "bnn_server_field.c", "bnn_siphash.c"}, "bnn_server_infer.c"


@dataclass(frozen=True)
class Harness:
    """A program to fuzz.

    Attributes:
        name: of the program.
        corpus: its inputs, under ``corpus/``; two models share them.
        dictionary: words for the fuzzer.
        fake: with the model of tests/c/fake, which can crash; else a compiled one.
        longest: bytes of an input.
        field: in field mode.
    """

    name: str
    corpus: str
    dictionary: str
    fake: bool
    longest: int
    field: bool = False

    @property
    def lane(self) -> str:
        """The harness that it stands for in ``make fuzz``."""
        return self.corpus


HARNESSES = (
    Harness("frame", "frame", "wire.dict", fake=True, longest=2048),
    Harness("server", "server", "wire.dict", fake=False, longest=2048),
    Harness("server_fake", "server", "wire.dict", fake=True, longest=2048),
    Harness("server_field", "server", "wire.dict", fake=False, longest=512, field=True),
    Harness("mlperf", "mlperf", "mlperf.dict", fake=False, longest=512),
    Harness("mlperf_fake", "mlperf", "mlperf.dict", fake=True, longest=512),
)


def _sources(harness: Harness) -> list[Path]:
    """The C files of a harness, main() and the compiled network apart.

    The app's files are taken as they are found, so that a new one is fuzzed too.
    """
    others = _OTHERS | ({_NOT_FIELD} if harness.field else _FIELD)
    app = {path.name: path for path in APP.glob("bnn_*.c") if path.name not in others}
    if harness.corpus == "frame":
        return [HERE / "fuzz_frame.c", HERE / "fuzz_wire.c", app["bnn_frame.c"]]
    mlperf = harness.corpus == "mlperf"
    mine = {name for name in app if not name.startswith("bnn_server" if mlperf else "bnn_mlperf")}
    network = [FAKE / "fake_model.c"] if harness.fake else []
    own = ["fuzz_mlperf.c", "fuzz_port.c"]
    if not mlperf:
        own = ["fuzz_server.c", "fuzz_port.c", "fuzz_wire.c"]
        own += ["fuzz_field.c"] if harness.field else []
    return [HERE / name for name in own] + [app[name] for name in sorted(mine)] + network


def _options(harness: Harness, model: Path) -> list[str]:
    folders = [HERE, APP, PORT, model / "scale", FAKE if harness.fake else model]
    options = [f"-I{folder}" for folder in folders]
    options += [f"-DFUZZ_MODEL_IS_FAKE={int(harness.fake)}", "-DBNN_MLPERF_MOST=8u"]
    if harness.field:
        options += ["-DBNN_FIELD", "-DBNN_FIELD_BLOCK=32u"]
    if harness.corpus == "frame":
        # The first byte of an input is the size of the decoder's buffer.
        options.append("-DFUZZ_WIRE_STARTS=1u")
    if harness.fake:
        # Its way out of a crash leads to a reset.
        sizes = f"-DBNN_MODEL_INPUT_BYTES={MODEL_BYTES}", f"-DBNN_MODEL_CLASSES={MODEL_CLASSES}"
        options += [*sizes, "-Dexit=fuzz_exit"]
    return options


def _flags(fuzzer: bool) -> list[str]:
    sanitize = f"-fsanitize={'fuzzer,' if fuzzer else ''}{SANITIZE}"
    return [*FLAGS, "-O2" if fuzzer else "-O1", sanitize, "-fno-sanitize-recover=all"]


def compile_network(model: Path, compiler: Sequence[str], *, fuzzer: bool) -> None:
    """Compile the network and the runtime in its folder, for all harnesses that have it."""
    files = [path.name for path in sorted(model.glob("*.c"))]
    subprocess.run([*compiler, *_flags(fuzzer), "-c", "-I.", *files], cwd=model, check=True)


def compile_harness(
    harness: Harness,
    model: Path,
    out: Path,
    compiler: Sequence[str],
    *,
    fuzzer: bool,
    sources_instead: Mapping[str, Path] | None = None,
) -> None:
    """Build one.

    Args:
        model: a folder that ``write_model`` filled and :func:`compile_network` compiled.
        out: the program.
        fuzzer: with libFuzzer, which clang has; else with a main() that replays files.
        sources_instead: files that take the place of others, by name.

    Raises:
        subprocess.CalledProcessError: it does not compile; the compiler has said why.
    """
    instead = sources_instead or {}
    files = [instead.get(path.name, path) for path in _sources(harness)]
    if not fuzzer:
        files.append(HERE / "fuzz_main.c")
    elif harness.corpus != "mlperf":
        files.append(HERE / "fuzz_mutate.c")
    if not harness.fake:
        files += sorted(model.glob("*.o"))
    command = [*compiler, *_flags(fuzzer), *_options(harness, model)]
    command += ["-o", str(out), *map(str, files)]
    subprocess.run(command, check=True)
