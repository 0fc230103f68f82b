"""Holds a board that speaks the MLPerf Tiny runner's protocol against the reference.

    bnnmcu export examples/models/s64.pt --board nucleo_f446 --server mlperf -o s64-mlperf
    bnnmcu run s64-mlperf                                  # prints the port of an emulated board
    python examples/mlperf_tiny.py s64-mlperf PORT -n 20   # or the port of a real one

Loads digits, runs one inference each, and compares the integer logits with the
reference's, bit for bit.  Exit code 1 if any differs, 2 or more if they could
not be compared.  docs/MLPERF.md has the commands.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bnnmcu.backend.project import MLPERF, Project, load_project
from bnnmcu.cli.inputs import images_for
from bnnmcu.data import Dataset
from bnnmcu.errors import BnnmcuError, LinkError, LinkTimeoutError, UsageError
from bnnmcu.link.transport import Transport, open_port
from bnnmcu.reference import argmax, run

READY = "m-ready"
#: Bytes in a `db` command, as MLPerf's own runner sends them.
CHUNK = 31
TIMEOUT_S = 30.0
#: For the first answer, which takes no time.
GREETING_S = 5.0
#: Differing images that are named.
NAMED = 5


class Runner:
    """The host's side of the protocol, over any transport.

    Attributes:
        text: what has come and belongs to no answer yet.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.text = ""

    def flush(self) -> None:
        """Get in step: end whatever command was open, and forget what was answered so far."""
        self._transport.write(b"%")
        while self._transport.read(4096, 0.3):
            pass
        self.text = ""

    def ask(self, command: str, timeout: float = TIMEOUT_S) -> list[str]:
        """Send a command; the lines of its answer without the last one, m-ready."""
        self._transport.write(f"{command}%".encode("ascii"))
        return self.answer(timeout)

    def answer(self, timeout: float = TIMEOUT_S) -> list[str]:
        """The lines up to the next m-ready; a board that starts says it, too.

        Raises:
            LinkTimeoutError: it does not come in time, in seconds.
        """
        deadline = time.monotonic() + timeout
        while f"{READY}\r\n" not in self.text:
            if time.monotonic() > deadline:
                came = f"only {self.text!r:.200}" if self.text else "nothing"
                raise LinkTimeoutError(
                    f"no {READY} within {timeout:g} s; {came} came",
                    hint="does this project's firmware run there, and nothing else use the port?",
                )
            self.text += self._transport.read(4096, 0.2).decode("ascii", "replace")
        answer, _, self.text = self.text.partition(f"{READY}\r\n")
        return answer.split("\r\n")[:-1]

    def value(self, command: str, pattern: str) -> str:
        """What a pattern finds in the answer to a command, which must have it."""
        lines = self.ask(command)
        for line in lines:
            match = re.fullmatch(pattern, line)
            if match:
                return match[1]
        raise LinkError(f"{command!r} was answered by {lines}")

    def load(self, image: Any) -> None:
        """Load an image, uint8 (H, W, C)."""
        data = np.ascontiguousarray(image, dtype=np.uint8).tobytes()
        self.value(f"db load {len(data)}", r"m-\[Expecting (\d+) bytes\]")
        for at in range(0, len(data), CHUNK):
            lines = self.ask(f"db {data[at : at + CHUNK].hex()}")
            if lines != (["m-load-done"] if at + CHUNK >= len(data) else []):
                raise LinkError(f"loading was answered by {lines}")

    def infer(self, count: int = 1, warmups: int = 0) -> tuple[list[float], list[int]]:
        """Probabilities, and microseconds at the start and the end if the board has a clock."""
        lines = self.ask(f"infer {count} {warmups}")
        found = re.findall(r"m-results-\[(.*)\]", "\n".join(lines))
        if len(found) != 1:
            raise LinkError(f"an inference was answered by {lines}")
        laps = [int(lap) for lap in re.findall(r"m-lap-us-(\d+)", "\n".join(lines))]
        return [float(number) for number in found[0].split(",")], laps

    def logits(self) -> list[int]:
        """The integer logits of the last inference."""
        return [int(number) for number in self.value("logits", r"m-logits-\[(.*)\]").split(",")]


def compare(runner: Runner, project: Project, images: Dataset, first: int) -> int:
    """Run the images, image *i* with the draw ``first + i``; how many differ, which it prints."""
    seeds = np.arange(first, first + len(images), dtype=np.uint64)
    expected = run(project.graph, images.images, seeds[:, np.newaxis])[:, 0]
    different = wrong = 0
    spans = []
    runner.ask(f"seed {first}")
    for i, (image, logits) in enumerate(zip(images.images, expected, strict=True)):
        runner.load(image)
        shares, laps = runner.infer()
        answer, label = runner.logits(), int(np.argmax(shares))
        wrong += label != images.labels[i]
        spans += [end - start for start, end in zip(laps[::2], laps[1::2], strict=True)]
        if answer == logits.tolist() and label == argmax(logits):
            continue
        different += 1
        if different <= NAMED:
            print(f"image {i}: {answer}, label {label}; the reference: {logits.tolist()}")
    print(f"{different} of {len(images)} images differ from the reference")
    if images.labelled:
        print(f"{wrong} of {len(images)} get a wrong label")
    if spans:
        print(f"an inference takes {sum(spans) / len(spans):,.0f} us")
    else:
        print("no times: this board has no clock of a known rate (an emulated one never has)")
    return different


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path, help="folder of 'bnnmcu export --server mlperf'")
    parser.add_argument("port", help="a device, or a URL such as socket://localhost:7000")
    parser.add_argument("-n", type=int, default=20, help="images (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="number of the first draw")
    options = parser.parse_args()
    if options.n < 1 or not 0 <= options.seed < 2**63:
        parser.error("-n is at least 1, and --seed from 0 to 2^63 - 1")
    try:
        project = load_project(options.project)
        if project.server != MLPERF:
            raise UsageError(
                "this project's firmware speaks bnnmcu's own protocol",
                where=str(options.project),
                hint="bnnmcu verify, or export again with --server mlperf",
            )
        images = images_for(project.graph, None, options.n)
        transport = open_port(options.port, project.board.uart.baud)
        try:
            runner = Runner(transport)
            runner.flush()
            runner.ask("", GREETING_S)
            board = runner.value("name", r"m-name-dut-\[(.*)\]")
            network = runner.value("profile", r"m-model-\[(.*)\]")
            print(f"{board} runs {network}")
            return int(compare(runner, project, images, options.seed) > 0)
        finally:
            transport.close()
    except BnnmcuError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
