"""Our networks beside those of other makers, one rig for all.

    python benchmarks/peers/run.py             # measures, and shows what changed
    python benchmarks/peers/run.py --update    # writes benchmarks/peers.json and PEERS.md
    python benchmarks/peers/run.py --update --only 64    # ours alone, the others as recorded

The peers come from PyPI into build/peers/site; nothing else is downloaded. A
peer that cannot be installed or built is SKIPPED, with the reason; a network
that answers something else than its maker's own reference ends this with 1.
The protocol stands in benchmarks/PEERS.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "peers"
RECORD = ROOT / "benchmarks" / "peers.json"
PAGE = ROOT / "benchmarks" / "PEERS.md"
#: Appended to the path: what the project's environment has wins.
SITE = BUILD / "site"
sys.path.append(str(SITE))

import peer_networks as networks  # noqa: E402
import peer_rig as rig  # noqa: E402

from bnnmcu import __version__  # noqa: E402
from bnnmcu.data import load_digits  # noqa: E402

#: The STM32F446RE.
FLASH, RAM = 512 * 1024, 128 * 1024
COUNTED = 10
_PIP_TIMEOUT_S = 180


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        key: in the record.
        network, maker, arithmetic: for readers.
        package: of PyPI, that it needs; None is ours.
        make: the folder to the network.
        like: key of the row whose answers it must give, where it does not run on this machine.
    """

    key: str
    network: str
    maker: str
    arithmetic: str
    package: str | None
    make: Callable[[Path], networks.Peer]
    like: str | None = None


def _ours(model: str, goal: str) -> Row:
    drawn = ", conv3 drawn (k = 4)" if model.startswith("s") else ""
    return Row(
        f"{model} {goal}",
        model.upper(),
        f"bnnmcu, `--optimize {goal}`",
        f"1 bit, first layer 14 bits{drawn}",
        None,
        lambda folder: networks.ours(model, goal, folder),
    )


def rows(digits: Any) -> list[Row]:
    """All lines, in the order of the table."""
    seen = digits[: networks.CALIBRATION]

    def bakenn(kernels: str) -> Callable[[Path], networks.Peer]:
        return lambda folder: networks.bakenn(kernels, seen, folder)

    return [
        _ours("b64", "speed"),
        _ours("b64", "balanced"),
        _ours("b64", "size"),
        _ours("c64", "balanced"),
        _ours("s64", "speed"),
        _ours("s64", "size"),
        Row("bakenn portable", "A64", "BakeNN, portable C", "int8", "bakenn", bakenn("portable")),
        Row(
            "bakenn cmsis-nn",
            "A64",
            "BakeNN, CMSIS-NN 4.0.0",
            "int8",
            "bakenn",
            bakenn("cmsis-nn"),
            like="bakenn portable",
        ),
        Row("emx", "A64", "emx-onnx-cgen", "float32", "emx-onnx-cgen", networks.emx),
        Row("emlearn", "MLP 784-64-10", "emlearn", "float32", "emlearn", networks.emlearn),
    ]


def install() -> dict[str, str]:
    """Puts the pinned packages into a folder of their own; what failed, with the reason."""
    wanted = (HERE / "requirements.txt").read_text()
    stamp = SITE / "requirements.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return {}
    shutil.rmtree(SITE, ignore_errors=True)
    failed = {}
    for line in wanted.splitlines():
        name, _, version = line.partition("==")
        if not version or line.startswith("#"):
            continue
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--quiet",
            "--retries=1",
            "install",
        ]
        try:
            done = subprocess.run(
                [*pip, "--no-deps", "--target", str(SITE), line],
                capture_output=True,
                text=True,
                timeout=_PIP_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            failed[name] = f"pip install {line}: no answer in {_PIP_TIMEOUT_S} s"
            continue
        if done.returncode != 0:
            said = [part for part in done.stderr.splitlines() if part.startswith("ERROR")]
            failed[name] = f"pip install {line}: {(said or ['failed'])[-1]}"
    if not failed:
        stamp.write_text(wanted)
    return failed


def missing_tools() -> list[str]:
    """What has to come with apt."""
    tools = ("qemu-system-arm", "arm-none-eabi-gcc", "gcc")
    return [tool for tool in tools if not shutil.which(tool)]


def wrong(what: str, got: Any, expected: Any, tolerance: float) -> str | None:
    """Compares logits; None if they agree."""
    scale = float(np.abs(expected).max())
    difference = float(np.abs(np.asarray(got) - expected).max()) / scale
    if difference <= tolerance:
        return None
    return f"{what}: logits differ by {difference:.2g} of the largest, allowed {tolerance:g}"


def measure(row: Row, data: Any, answers: dict[str, Any]) -> dict[str, Any]:
    """One line's figures.

    Args:
        answers: logits on this machine by key, added to.

    Raises:
        ValueError: it answers something else than it must.
        PeerError: it cannot be built or run.
    """
    folder = BUILD / row.key.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    peer = row.make(folder)
    digits = data.images[:COUNTED]
    built = rig.build(peer.source, digits)
    counted = rig.count(peer.source, built)
    checked = peer.expected(digits[: peer.check])
    problems = [
        wrong(
            "emulated against its reference", counted.logits[: peer.check], checked, peer.tolerance
        )
    ]
    if peer.source.on_host:
        answers[row.key] = rig.on_host(peer.source, data.images)
    twin = row.like or row.key
    if twin in answers:
        on_host = answers[twin][:COUNTED]
        problems.append(
            wrong("emulated against this machine", counted.logits, on_host, peer.tolerance)
        )
    told = [problem for problem in problems if problem]
    if told:
        raise ValueError("; ".join(told))
    known = answers.get(twin)
    accuracy = None if known is None else float((known.argmax(axis=1) == data.labels).mean())
    ram = built.ram + counted.stack
    return {
        "network": row.network,
        "maker": row.maker,
        "arithmetic": row.arithmetic,
        "machine": built.machine,
        "instructions": round(sum(counted.instructions) / len(counted.instructions)),
        "spread": max(counted.instructions) - min(counted.instructions),
        "flash": built.flash,
        "ram": ram,
        "stack": counted.stack,
        "fits": built.flash <= FLASH and ram <= RAM,
        "correct": None if accuracy is None else round(accuracy, 4),
        "checked": peer.check,
    }


def _version(tool: str) -> str:
    said = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0].strip()


def versions() -> dict[str, str]:
    """Of all that decides the figures."""
    pinned = [line for line in (HERE / "requirements.txt").read_text().splitlines() if "==" in line]
    return {
        "bnnmcu": __version__,
        **dict(line.split("==") for line in pinned),
        "compiler": _version("arm-none-eabi-gcc"),
        "emulator": _version("qemu-system-arm"),
    }


def show(measured: dict[str, Any], skipped: dict[str, str], before: dict[str, Any]) -> None:
    """The table in text, with the change of each count since the record."""
    print(f"{'':18}{'instructions':>13}{'':10}{'flash':>11}{'RAM':>9}  fits F446  digits right")
    for key, row in measured.items():
        old = before.get("rows", {}).get(key, {}).get("instructions")
        change = f"{100 * (row['instructions'] / old - 1):+.2f} %" if old else "new"
        share = "-" if row["correct"] is None else f"{100 * row['correct']:.2f} %"
        print(
            f"{key:18}{row['instructions']:>13,}{change:>10}{row['flash']:>11,}{row['ram']:>9,}"
            f"  {'yes' if row['fits'] else 'NO':9}  {share}"
        )
    for key, reason in skipped.items():
        print(f"{key:18}SKIPPED: {reason}")


def page(record: dict[str, Any]) -> str:
    """PEERS.md from its template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("PEERS.md.j2").render(
        record, calibration=networks.CALIBRATION, counted=COUNTED
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare with other makers' networks.")
    parser.add_argument("--update", action="store_true", help="write peers.json and PEERS.md")
    parser.add_argument("--only", metavar="WORD", help="lines whose key has this word")
    arguments = parser.parse_args()
    missing = missing_tools()
    if missing:
        print(f"SKIPPED: {', '.join(missing)} not installed; nothing was measured")
        return 0
    BUILD.mkdir(parents=True, exist_ok=True)
    failed = install()
    data = load_digits()
    data = data.stratified(len(data))
    answers: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    broken = False
    for row in rows(data.images):
        if arguments.only and arguments.only not in row.key:
            continue
        started = time.monotonic()
        try:
            if row.package in failed:
                raise rig.PeerError(failed[row.package])
            measured[row.key] = measure(row, data, answers)
        except (rig.PeerError, ImportError) as failure:
            skipped[row.key] = str(failure)
            # Our own networks always build; a peer may not.
            broken |= row.package is None
        except ValueError as error:
            skipped[row.key] = f"WRONG ANSWERS: {error}"
            broken = True
        print(f"{row.key}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    before = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    show(measured, skipped, before)
    if arguments.update:
        record = {
            "versions": versions(),
            "flags": " ".join(rig.FLAGS),
            "digits": len(data),
            "rows": measured,
        }
        if arguments.only:
            # Lines that were not measured stand as they are, if nothing else changed.
            if any(record[key] != before.get(key) for key in ("versions", "flags", "digits")):
                print("not recorded: versions or flags changed, measure the whole table")
                return 1
            merged = before["rows"] | measured
            keys = [row.key for row in rows(data.images)]
            record["rows"] = {key: merged[key] for key in keys if key in merged}
        incomplete = [key for key, row in measured.items() if row["correct"] is None]
        if skipped or broken or incomplete:
            print(f"not recorded: a line is missing or incomplete {incomplete or ''}")
            return 1
        RECORD.write_text(json.dumps(record, indent=2) + "\n")
        PAGE.write_text(page(record))
        print(f"recorded in {RECORD.name} and {PAGE.name}")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
