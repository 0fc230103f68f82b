"""``make fuzz``: builds the harnesses, replays the corpus, fuzzes, and fails on any finding.

Three lanes run side by side: frame decoder, protocol server, MLPerf server.
The servers' harnesses exist for two networks, which share their lane's time.
What libFuzzer finds on the way stays in build/fuzz; ``--merge`` brings what
adds coverage into the corpus.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from harnesses import HARNESSES, Harness, compile_harness, compile_network  # noqa: E402
from model import write_model  # noqa: E402
from seeds import write_seeds  # noqa: E402

#: Seconds for one input; a server that loops is a finding.
_TIMEOUT = 25
_PACKAGE = "clang libclang-rt-14-dev (Debian 12; libclang-rt-dev on others)"


@dataclass(frozen=True)
class Outcome:
    """What a harness did: return code, executions, edges and features covered, inputs kept."""

    name: str
    code: int
    executions: int
    per_second: int
    edges: int
    features: int
    inputs: int
    seconds: float


def find_clang(folder: Path) -> str | None:
    """A clang that can link with libFuzzer and the sanitizers."""
    for name in ("clang", *(f"clang-{version}" for version in range(22, 13, -1))):
        path = shutil.which(name)
        if path is None:
            continue
        done = subprocess.run(
            [path, "-fsanitize=fuzzer,address,undefined", "-xc", "-", "-o", str(folder / "probe")],
            input=b"int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n ? 0 : 0; }",
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            return path
    return None


def _numbers(log: str) -> dict[str, int]:
    """The counters of libFuzzer's last line, and its final statistics."""
    found = {name: int(n) for name, n in re.findall(r"stat::(\w+):\s+(\d+)", log)}
    for edges, features, corpus in re.findall(r" cov: (\d+) ft: (\d+) corp: (\d+)/", log):
        found |= {"edges": int(edges), "features": int(features), "inputs": int(corpus)}
    return found


def _fuzz(harness: Harness, folder: Path, seconds: float) -> Outcome:
    """Run one harness: first on its corpus, then on what it makes of it."""
    work = folder / "work" / harness.name
    findings = folder / "findings"
    for each in (work, findings):
        each.mkdir(parents=True, exist_ok=True)
    log = folder / f"{harness.name}.log"
    corpus = [str(HERE / "corpus" / harness.corpus), str(folder / "seeds" / harness.corpus)]
    options = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={harness.longest}",
        f"-timeout={_TIMEOUT}",
        f"-dict={HERE / harness.dictionary}",
        f"-artifact_prefix={findings}/{harness.name}-",
        "-print_final_stats=1",
        "-rss_limit_mb=2048",
    ]
    program = str(folder / harness.name)
    with log.open("wb") as out:
        # Whatever is in the corpus must pass, each for itself, before anything new is tried.
        code = subprocess.run(
            [program, "-runs=0", *options[2:], *corpus], stdout=out, stderr=out, check=False
        ).returncode
        if code == 0 and seconds > 0:
            code = subprocess.run(
                [program, *options, str(work), *corpus], stdout=out, stderr=out, check=False
            ).returncode
    numbers = _numbers(log.read_text(errors="replace"))
    return Outcome(
        harness.name,
        code,
        numbers.get("number_of_executed_units", 0),
        numbers.get("average_exec_per_sec", 0),
        numbers.get("edges", 0),
        numbers.get("features", 0),
        numbers.get("inputs", 0),
        seconds,
    )


def _lane(harnesses: list[Harness], folder: Path, seconds: float) -> list[Outcome]:
    return [_fuzz(harness, folder, seconds / len(harnesses)) for harness in harnesses]


def _merge(folder: Path, extra: list[Path]) -> None:
    """Make the corpus anew: the fewest inputs that cover what all known ones cover."""
    for corpus in sorted({harness.corpus for harness in HARNESSES}):
        mine = [harness for harness in HARNESSES if harness.corpus == corpus]
        old = HERE / "corpus" / corpus
        known = [old, folder / "seeds" / corpus]
        known += [folder / "work" / harness.name for harness in mine]
        known += [path / harness.name for path in extra for harness in mine]
        with tempfile.TemporaryDirectory(dir=folder) as name:
            for harness in mine:
                # The second network's harness adds what only it covers. Edges only: how often
                # they were taken would make the corpus twenty times as large.
                subprocess.run(
                    [str(folder / harness.name), "-merge=1", "-use_counters=0"]
                    + [f"-max_len={harness.longest}", name]
                    + [str(path) for path in known if path.is_dir()],
                    stderr=subprocess.DEVNULL,
                    check=True,
                )
            shutil.rmtree(old, ignore_errors=True)
            old.mkdir(parents=True)
            for path in Path(name).iterdir():
                shutil.copy(path, old / path.name)
        files = list(old.iterdir())
        print(f"{corpus}: {len(files)} inputs, {sum(path.stat().st_size for path in files)} bytes")


def main() -> int:
    """The command; 1 on a finding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    seconds = float(os.environ.get("FUZZ_SECONDS", "60"))
    parser.add_argument("--seconds", type=float, default=seconds, help="for each lane")
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--only", help="one harness alone, for all the seconds")
    parser.add_argument("--merge", action="store_true", help="renew the corpus afterwards")
    parser.add_argument("--extra", type=Path, action="append", default=[], help="for --merge")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    clang = find_clang(folder)
    if clang is None:
        print(f"SKIPPED: no clang with libFuzzer's runtime (apt-get install {_PACKAGE})")
        return 0
    shutil.rmtree(folder / "model", ignore_errors=True)
    write_model(folder / "model")
    compile_network(folder / "model", [clang], fuzzer=True)
    write_seeds(folder / "seeds")
    chosen = [harness for harness in HARNESSES if options.only in (None, harness.name)]
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(
                compile_harness,
                harness,
                folder / "model",
                folder / harness.name,
                [clang],
                fuzzer=True,
            )
            for harness in chosen
        ]
        for job in jobs:
            job.result()
    corpora = sorted({harness.corpus for harness in chosen})
    lanes = [[h for h in chosen if h.corpus == corpus] for corpus in corpora]
    with ThreadPoolExecutor(len(lanes)) as pool:
        found = list(pool.map(lambda lane: _lane(lane, folder, options.seconds), lanes))
    outcomes = [outcome for lane in found for outcome in lane]
    print(f"{'harness':12} {'seconds':>7} {'executions':>10} {'a second':>8} {'edges':>6} "
          f"{'features':>8} {'inputs':>6}")  # fmt: skip
    for item in outcomes:
        print(
            f"{item.name:12} {item.seconds:7.0f} {item.executions:10} {item.per_second:8} "
            f"{item.edges:6} {item.features:8} {item.inputs:6}"
        )
    bad = [outcome for outcome in outcomes if outcome.code != 0]
    for item in bad:
        log = (folder / f"{item.name}.log").read_text(errors="replace").splitlines()
        print(f"FINDING in {item.name}; the input is in {folder / 'findings'}:", file=sys.stderr)
        print("\n".join(log[-40:]), file=sys.stderr)
    if options.merge and not bad:
        _merge(folder, options.extra)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
