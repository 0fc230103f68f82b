"""The MLPerf Tiny server: in a process under the sanitizers, and on an emulated board."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from link_rig import APP, FAKE, PORT, REPO, ServerTransport, compile_c, digits, fake_logits
from needs import need_emulator, need_toolchain
from small_network import IMAGES, small_network

from bnnmcu import reference
from bnnmcu.backend.mlperf import softmax
from bnnmcu.backend.project import fixed_files, load_project, write_project
from bnnmcu.boards import load_board
from bnnmcu.errors import LinkError, ModelFileError, UsageError
from bnnmcu.passes import lower
from bnnmcu.toolchain.compiler import build_firmware
from bnnmcu.toolchain.unicorn_board import UnicornBoard

SOURCES = (
    APP / "bnn_frame.c",
    APP / "bnn_health.c",
    *sorted(APP.glob("bnn_mlperf*.c")),
    APP / "main_mlperf.c",
    FAKE / "fake_model.c",
)
IMAGE = digits(1)[0]
#: A port with a clock of 1 MHz whose counter wraps: a thousand ticks at every look at it.
CLOCK = """
#define bnn_port_clock_hz posix_clock_hz
#define bnn_port_counter posix_counter
#define bnn_port_ticks posix_ticks
#include "bnn_port_posix.c"
#undef bnn_port_clock_hz
#undef bnn_port_counter
#undef bnn_port_ticks
uint32_t bnn_port_clock_hz(void) { return 1000000; }
uint8_t bnn_port_counter(void) { return BNN_COUNTER_DWT; }
uint32_t bnn_port_ticks(void)
{
    static uint32_t now = 0xFFFFF000u;

    now += 1000u;
    return now;
}
"""


def _example() -> Any:
    """The client of the examples: what users start from is what is tested."""
    spec = importlib.util.spec_from_file_location(
        "mlperf_tiny", REPO / "examples" / "mlperf_tiny.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


Runner = _example().Runner


def shares(logits: list[int], scale: float) -> list[str]:
    """Probabilities as docs/MLPERF.md defines them, in Python's integers."""
    constants = softmax(scale)
    label = logits.index(max(logits))
    weights = []
    for logit in logits:
        away = (logits[label] - logit) >> constants.down
        if away > constants.limit:
            weights.append(0)
            continue
        y = (away * constants.scale) >> constants.shift
        weight = 1 << 30
        for k in range(1, 21):
            if y >> (20 - k) & 1:
                weight = weight * round(2 ** (32 - 2.0**-k)) >> 32
        weights.append(weight >> (y >> 20))
    parts = [weight * 1_000_000 // sum(weights) for weight in weights]
    best = parts[label]
    parts = [min(part, best - 1) if i < label else part for i, part in enumerate(parts)]
    return [f"{part // 1_000_000}.{part % 1_000_000:06d}" for part in parts]


Server = Callable[..., Any]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    made: dict[tuple[object, ...], Path] = {}

    def compiled(port: Path | str, scale: float, *defines: str) -> Path:
        key = (port, scale, *defines)
        if key not in made:
            folder = tmp_path_factory.mktemp("mlperf")
            values = softmax(scale)
            (folder / "bnn_mlperf_model.h").write_text(
                f"#define BNN_MLPERF_DOWN {values.down}u\n#define BNN_MLPERF_LIMIT {values.limit}u"
                f"\n#define BNN_MLPERF_SCALE {values.scale}u\n"
                f"#define BNN_MLPERF_SHIFT {values.shift}u\n"
            )
            if isinstance(port, str):
                (folder / "port.c").write_text(port)
                port = folder / "port.c"
            made[key] = compile_c(folder / "server", (*SOURCES, port), f"-I{folder}", *defines)
        return made[key]

    return compiled


@pytest.fixture
def serve(build: Callable[..., Path]) -> Iterator[Server]:
    started = []

    def start(
        port: Path | str = PORT / "bnn_port_posix.c", scale: float = 1e-5, *defines: str
    ) -> Any:
        transport = ServerTransport(build(port, scale, *defines))
        started.append(transport)
        runner = Runner(transport)
        greeting = runner.answer()
        assert greeting[0] == "m-timestamp-mode-performance"
        assert greeting[1].startswith("m-lap-")
        assert greeting[2:] == ["m-init-done"]
        # A host gets in step with an empty command, on which the reference crashes.
        assert runner.ask("") == []
        return runner

    yield start
    for transport in started:
        transport.close()


LOAD = "e-[Command 'db load' takes 1 to 784 bytes]"
COUNT = "e-[Inference iterations must be 1 to 1000000]"
SEED = "e-[A seed is a decimal number below 2^64]"


#: Commands of a board that has computed nothing yet, and the lines that they are answered by.
ANSWERS: list[tuple[str, list[str]]] = [
    ("profile", ["m-profile-[ULPMark for tinyML Firmware V0.0.1]", "m-model-[fake]"]),
    ("  name  ", ["m-name-dut-[posix]"]),
    ("\r\nna\nme\r", ["m-name-dut-[posix]"]),
    ("nam", ["e-[Unknown command: nam]"]),
    ("names", ["e-[Unknown command: names]"]),
    ("x" * 80, [f"e-[Unknown command: {'x' * 80}]"]),
    ("x" * 81, ["e-[Command too long]"]),
    ("name" + " " * 5000, ["e-[Command too long]"]),
    ("name\t", ["e-[Unreadable command]"]),
    ("db", ["e-[Command 'db' requires a subcommand]"]),
    ("db load", ["e-[Command 'db load' requires the # of bytes]"]),
    ("db load 0", [LOAD]),
    ("db load 785", [LOAD]),
    ("db load -1", [LOAD]),
    ("db load 18446744073709551620", [LOAD]),
    ("db load 4 4", ["e-[Too many arguments]"]),
    # The reference would write these behind its buffer.
    ("db 00", ["e-[Nothing is expected: db load first]"]),
    ("db 000", ["e-[Odd number of hex digits]"]),
    ("db 0g", ["e-[Invalid hex digit]"]),
    ("db print", []),
    ("results", ["e-[No inference yet]"]),
    ("logits", ["e-[No inference yet]"]),
    ("infer", ["e-[The input needs 784 bytes, loaded are 0]"]),
    ("infer 0", [COUNT]),
    ("infer 1000001", [COUNT]),
    ("infer x", [COUNT]),
    ("infer 1 -1", ["e-[Inference warmup must be 0 to 1000000]"]),
    ("infer 1 1 1", ["e-[Too many arguments]"]),
    ("seed", ["m-seed-[0]"]),
    ("seed 18446744073709551615", ["m-seed-[18446744073709551615]"]),
    ("seed 18446744073709551616", [SEED]),
    ("seed 0x10", [SEED]),
    ("seed 1 2", ["e-[Too many arguments]"]),
]


def test_a_command_is_answered_by_exactly_this(serve: Server) -> None:
    runner = serve()
    for command, answer in ANSWERS:
        assert (command, runner.ask(command)) == (command, answer)


def test_a_load_is_printed_cut_and_kept_whole(serve: Server) -> None:
    runner = serve()
    assert runner.ask("db load 10") == ["m-[Expecting 10 bytes]"]
    assert runner.ask("db 0001aAFf") == []
    # A refused command stores nothing, not even its good digits.
    assert runner.ask("db 010203x4") == ["e-[Invalid hex digit]"]
    assert runner.ask("db 040506070809aabbccdd") == ["m-load-done"]
    lines = ["m-buffer-00-01-aa-ff-04-05-06-07", "m-buffer-08-09"]
    assert runner.ask("db print") == lines
    assert runner.ask("db 77") == ["e-[Nothing is expected: db load first]"]
    assert runner.ask("db print") == lines
    assert runner.ask("infer") == ["e-[The input needs 784 bytes, loaded are 10]"]


@pytest.mark.parametrize(
    ("scale", "seed", "image"),
    [
        (1e-5, 1000, IMAGE),
        (0.02, 7, IMAGE // 200),
        (3e-9, 12345, IMAGE),
        # All logits are 0 but the last, a count: six decimals cannot tell the label apart.
        (1e-12, 65521, np.zeros_like(IMAGE)),
        (40.0, 65521, np.zeros_like(IMAGE)),
    ],
)
def test_results_are_probabilities_and_their_first_largest_is_the_label(
    serve: Server, scale: float, seed: int, image: Any
) -> None:
    runner = serve(PORT / "bnn_port_posix.c", scale)
    runner.load(image)
    runner.ask(f"seed {seed - 3}")
    printed, laps = runner.infer(3, 1)
    # A warm-up and three: the last of them had this seed.
    logits = [*fake_logits(image, seed), 4]
    assert runner.logits() == logits
    assert runner.ask("seed") == [f"m-seed-[{seed + 1}]"]
    assert runner.ask("results") == [f"m-results-[{','.join(shares(logits, scale))}]"]
    assert printed == [float(share) for share in shares(logits, scale)]
    exact = np.exp((np.array(logits, dtype=np.float64) - max(logits)) * scale)
    np.testing.assert_allclose(printed, exact / exact.sum(), atol=3e-6)
    assert np.argmax(printed) == np.argmax(logits)
    # The process has no clock tree, so its ticks are not called time.
    assert laps == []
    assert [line[:12] for line in runner.ask("timestamp")] == ["m-lap-ticks-"]


def test_microseconds_where_there_is_a_clock_and_no_wrap_in_them(serve: Server) -> None:
    runner = serve(CLOCK)
    runner.load(IMAGE)
    _, (start, end) = runner.infer(20, 3)
    # One look at the counter after each inference, and one at the end.
    assert end - start == 21_000
    # It has wrapped at 4.096 ms.
    assert start > 4096
    (before,), (after,) = runner.ask("timestamp"), runner.ask("timestamp")
    assert int(after.removeprefix("m-lap-us-")) > int(before.removeprefix("m-lap-us-")) > end


def test_a_wrong_flash_a_refusal_and_a_crash_are_told(serve: Server) -> None:
    wrong = serve(PORT / "bnn_port_posix.c", 1e-5, "-DBNN_POSIX_IMAGE_CRC=1")
    wrong.load(IMAGE)
    assert wrong.ask("infer") == ["e-[The firmware in flash does not match its checksum]"]
    refused = serve()
    refused.load(IMAGE)
    refused.ask(f"seed {0xE0}")
    assert refused.ask("infer 1 0")[-1] == "e-[The network refused: error 3]"
    assert refused.ask("results") == ["e-[No inference yet]"]
    refused.ask(f"seed {0xFA}")
    # It parks after this; here, the process ends.
    with pytest.raises(LinkError, match="has ended"):
        refused.ask("infer 1 0")
    assert "e-[Fault: pc 08000200, lr 08000101, cfsr 00008200" in refused.text


def test_lost_bytes_cost_the_command_that_they_may_belong_to(build: Callable[..., Path]) -> None:
    transport = ServerTransport(build(FAKE / "poor_port.c", 1e-5))
    try:
        runner = Runner(transport)
        runner.answer()
        # This port says, once and at the second look at it, that it lost something.
        assert runner.ask("name") == ["m-name-dut-[posix]"]
        assert runner.ask("name") == ["e-[Received bytes were lost]"]
        assert runner.ask("name") == ["m-name-dut-[posix]"]
    finally:
        transport.close()


@pytest.mark.parametrize("scale", [5e-324, 1e-18, 1e-9, 1e-3, 1.0, 16.6, 17.0, 1e300])
def test_the_constants_of_a_scale_stay_within_their_bounds(scale: float) -> None:
    constants = softmax(scale)
    assert 0 <= constants.down < 64
    assert 0 <= constants.shift < 64
    assert 0 <= constants.limit <= 1 << 30
    assert constants.limit * constants.scale < 1 << 63
    if constants.scale >= 1 << 31:
        made = math.ldexp(constants.scale, -constants.shift - 20 - constants.down)
        assert made == pytest.approx(scale * math.log2(math.e), rel=1e-9)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlperf") / "project"
    graph = lower(small_network(drawn=True)).graph
    write_project(graph, load_board("nucleo_f446re"), folder, server="mlperf")
    return folder


def test_a_project_knows_what_its_firmware_speaks(project: Path) -> None:
    loaded = load_project(project)
    assert loaded.server == "mlperf"
    assert loaded.predicted("gcc") is None
    with pytest.raises(UsageError, match="MLPerf"):
        loaded.check_answers()
    assert not [path for path in project.rglob("*") if "bnn_server" in path.name]
    assert "pio test" not in (project / "platformio.ini").read_text()
    loaded.manifest["server"] = "telnet"
    with pytest.raises(ModelFileError, match="telnet"):
        _ = loaded.server
    # An export of before there was a choice.
    del loaded.manifest["server"]
    loaded.check_answers()
    assert not [name for name in fixed_files(loaded.board) if "mlperf" in name]


def test_an_emulated_board_answers_as_the_reference_does(project: Path) -> None:
    need_emulator("unicorn")
    need_toolchain("gcc")
    loaded = load_project(project)
    built = build_firmware(project, "gcc")
    # The allowance of the export is one.
    foretold = loaded.manifest["memory"]["toolchains"]["gcc"]
    assert foretold["flash"] - 2500 < built.flash_bytes <= foretold["flash"]
    assert built.ram_bytes <= foretold["ram"]
    assert built.stack_bound is not None
    seeds = np.arange(5, 5 + len(IMAGES), dtype=np.uint64)[:, np.newaxis]
    expected = reference.run(loaded.graph, IMAGES, seeds)[:, 0]
    with UnicornBoard(built.elf, loaded.board) as board:
        runner = Runner(board)
        runner.flush()
        assert runner.ask("name") == ["m-name-dut-[nucleo_f446re]"]
        runner.ask("seed 5")
        for image, logits in zip(IMAGES, expected, strict=True):
            runner.load(image)
            printed, laps = runner.infer(1, 0)
            assert runner.logits() == logits.tolist()
            assert printed == [float(x) for x in shares(logits.tolist(), loaded.graph.logit_scale)]
            assert laps == [], "an emulator's ticks are no time"
