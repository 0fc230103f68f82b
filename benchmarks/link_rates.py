"""How fast images get through the link, against what the line and the emulator could carry.

    python benchmarks/link_rates.py             # prints, with what is missed
    python benchmarks/link_rates.py --strict    # and fails where a share is too small
    python benchmarks/link_rates.py --update    # records the figures in link_rates.json

README.md describes the protocol.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import processor
from networks import images, network

import bnnmcu
from bnnmcu.backend.project import load_project, write_project
from bnnmcu.boards import Board, load_board
from bnnmcu.link.device import Device
from bnnmcu.link.flaky import BITS_PER_BYTE, FlakyTransport, Flaws
from bnnmcu.link.frame import Frame, encode_frame
from bnnmcu.link.protocol import REPLY, InferRequest, MessageType
from bnnmcu.link.transport import Transport
from bnnmcu.toolchain.compiler import build_firmware
from bnnmcu.toolchain.emulator import open_emulator

HERE = Path(__file__).resolve().parent
RECORD = HERE / "link_rates.json"
ECHO = HERE / "link_echo.c"
BOARD = "nucleo_f446re"
NETWORK = "b64"
PACE = 115_200
#: Images of a run, by what it is.
PACED, UNICORN, QEMU = 60, 200, 60
#: Runs of each, in turns with the echo's; the best counts, as the machine is never quite idle.
REPEATS = 3
#: What must be reached, whatever the machine.
LEAST_LINE, LEAST_ECHO = 0.90, 0.70
#: Which echo is a bound: QEMU takes longer over a byte than over an image's arithmetic. unicorn
#: is the other way round, so that there the echo must compute as well, or it bounds nothing.
JUDGED = (
    ("qemu without icount", "echo"),
    ("qemu without icount", "computing echo"),
    ("unicorn", "computing echo"),
)
#: What an idle machine of 2024 is expected to do; shown, not judged.
EXPECTED = {"unicorn": 200, "qemu without icount": 30}
PATIENCE = 60.0


def build(folder: Path, board: Board) -> tuple[Path, Path]:
    """The ELF files of the network's firmware and of the echo, on the same driver."""
    write_project(network(NETWORK), board, folder / "net")
    shutil.copytree(folder / "net", folder / "echo")
    # The linker leaves out what is then no longer called.
    (folder / "echo" / "src" / "main.c").write_bytes(ECHO.read_bytes())
    for server in (folder / "echo" / "src").glob("bnn_server*.c"):
        server.unlink()
    return tuple(build_firmware(folder / name, "gcc").elf for name in ("net", "echo"))


@contextmanager
def emulated(kind: str, elf: Path, board: Board) -> Iterator[Transport]:
    transport = open_emulator(kind, elf, board, icount=False)
    try:
        yield transport
    finally:
        transport.close()


def infer(transport: Transport, model: bytes, count: int) -> dict[str, float]:
    """Images a second from the first answer to the last, with the sizes on the wire."""
    data = images(network(NETWORK), count).images
    with Device(transport, expect_model=model) as device:
        answers = device.infer_many((image, [index]) for index, image in enumerate(data))
        first = next(answers)
        start = time.perf_counter()
        more = sum(1 for _ in answers)
        seconds = time.perf_counter() - start
        retries = device.stats.retries
        info = device.info
        request = InferRequest(data[0].tobytes(), (0,)).pack()
        reply = bytes([1] * (4 + 4 + info.classes * info.logit_bytes))
        # Those that were in flight when the clock started may have been through by then.
        return {
            "rate": (more - (info.window - 1)) / seconds,
            "retries": retries,
            "window": info.window,
            "image": data[0].size,
            "request": len(encode_frame(Frame(MessageType.INFER, 1, request))),
            "reply": len(encode_frame(Frame(MessageType.INFER | REPLY, 1, reply))),
            "logits": first.logits.size,
        }


def echo(transport: Transport, sizes: dict[str, float], count: int, *, computes: bool) -> float:
    """Requests a second of a firmware without a protocol, with as many in flight."""
    request, reply, window = int(sizes["request"]), int(sizes["reply"]), int(sizes["window"])
    transport.write(request.to_bytes(2, "little") + reply.to_bytes(2, "little") + bytes([computes]))
    wire = bytes(index % 255 + 1 for index in range(request))
    sent = got = 0
    start = 0.0
    deadline = time.monotonic() + PATIENCE
    while got < count * reply:
        while sent < count and sent < got // reply + window:
            transport.write(wire)
            sent += 1
        before = got
        got += len(transport.read(65536, 1.0))
        if before < reply <= got:
            start = time.perf_counter()
        if time.monotonic() > deadline:
            raise TimeoutError(f"the echo answered {got} of {count * reply} bytes")
    return (count - 1) / (time.perf_counter() - start)


def measure(note: Callable[[str], None]) -> dict[str, Any]:
    """All figures of this machine."""
    board = load_board(BOARD)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bnnmcu-") as folder:
        net, plain = build(Path(folder), board)
        model = load_project(Path(folder) / "net").sha256
        note(f"{PACED} images through a line of {PACE} baud, {REPEATS} times")
        runs = []
        for _ in range(REPEATS):
            with emulated("unicorn", net, board) as inner:
                runs.append(infer(FlakyTransport(inner, Flaws(), pace=PACE), model, PACED))
        paced = max(runs, key=lambda one: one["rate"])
        capacity = PACE / BITS_PER_BYTE
        found["line"] = {
            "baud": PACE,
            "images per second": round(paced["rate"], 2),
            "at most": round(capacity / paced["request"], 2),
            "share of the line": round(paced["rate"] * paced["image"] / capacity, 4),
            "retries": int(paced["retries"]),
        }
        for kind, name, count in (
            ("unicorn", "unicorn", UNICORN),
            ("qemu", "qemu without icount", QEMU),
        ):
            note(f"{count} images on {name}, {REPEATS} times in turns with the echo")
            rates = []
            echoes: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(REPEATS):
                with emulated(kind, net, board) as inner:
                    sizes = infer(inner, model, count)
                rates.append(sizes["rate"])
                for computes, list_ in echoes.items():
                    with emulated(kind, plain, board) as inner:
                        list_.append(echo(inner, sizes, count, computes=computes))
            best, idle, busy = max(rates), max(echoes[False]), max(echoes[True])
            found[name] = {
                "images per second": round(best, 1),
                "echoes per second": round(idle, 1),
                "computing echoes per second": round(busy, 1),
                "share of the echo": round(best / idle, 3),
                "share of the computing echo": round(best / busy, 3),
                "bytes of a request": int(sizes["request"]),
                "bytes of a reply": int(sizes["reply"]),
            }
    return found


def judge(found: dict[str, Any]) -> list[str]:
    """What is missed of that which does not depend on the machine."""
    missed = []
    share = found["line"]["share of the line"]
    if share < LEAST_LINE:
        missed.append(f"images are {share:.1%} of the line, not {LEAST_LINE:.0%}")
    for name, which in JUDGED:
        share = found[name][f"share of the {which}"]
        if share < LEAST_ECHO:
            missed.append(f"{name}: {share:.0%} of the {which}'s rate, not {LEAST_ECHO:.0%}")
    return missed


def show(found: dict[str, Any]) -> None:
    line = found["line"]
    print(
        f"line of {line['baud']} baud: {line['images per second']:.2f} images/s of "
        f"{line['at most']:.2f}; images are {line['share of the line']:.1%} of what it carries"
    )
    for name, expected in EXPECTED.items():
        entry = found[name]
        print(
            f"{name}: {entry['images per second']:.0f} images/s (about {expected} expected of an "
            f"idle machine); {entry['share of the echo']:.0%} of an equal-sized echo's "
            f"{entry['echoes per second']:.0f}/s, {entry['share of the computing echo']:.0%} of "
            f"the {entry['computing echoes per second']:.0f}/s of one that runs the network too"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure how fast images get through the link.")
    parser.add_argument("--update", action="store_true", help="record the figures")
    parser.add_argument("--require", action="store_true", help="fail where tools are missing")
    # Not by default: the machine may be busy with something else for as long as it takes.
    parser.add_argument("--strict", action="store_true", help="fail where a share is missed")
    arguments = parser.parse_args()
    missing = [t for t in ("qemu-system-arm", "arm-none-eabi-gcc") if not shutil.which(t)]
    try:
        import unicorn  # noqa: F401
    except ImportError:
        missing.append("unicorn")
    if missing:
        print(f"SKIPPED: {', '.join(missing)} not installed; the link's rates were NOT measured")
        return 1 if arguments.require else 0
    found = measure(lambda text: print(text, file=sys.stderr, flush=True))
    show(found)
    if arguments.update:
        machine = {
            "processor": processor(),
            "cores": os.cpu_count(),
            "load at the end": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
            "unicorn": version("unicorn"),
            "bnnmcu": bnnmcu.__version__,
        }
        record = {"network": NETWORK, "board": BOARD, "machine": machine, **found}
        RECORD.write_text(json.dumps(record, indent=2) + "\n")
        print(f"recorded in {RECORD.name}")
    missed = judge(found)
    for text in missed:
        print(f"MISSED: {text}")
    return 1 if missed and arguments.strict else 0


if __name__ == "__main__":
    sys.exit(main())
