"""Measures the sections that bnnmcu/backend/memory.py predicts flash and RAM from.

    python benchmarks/code_sizes.py           # writes bnnmcu/backend/code_sizes.json
    python benchmarks/code_sizes.py --check   # says whether it still fits the sources

Protocol: every fixed C source of a project is compiled as ``bnnmcu build`` does,
for each core and board and with each compiler, and the sections of the objects
are read.  Sources that depend on the network are compiled again for other
numbers of layers, classes and pixels.  Probe networks (the random ones of the
tests, until each kernel occurred often enough) show what a step adds to the
generated source.  The sizes are exact for these compilers; others differ a little.
zig is measured for one core only, and of boards with the same drivers one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from code_objects import RING, Bench, Row, board_header, linker_script
from elftools.elf.elffile import ELFFile

from bnnmcu.backend.code_sizes import MODEL_UNIT, board_facts
from bnnmcu.backend.emit import model_sources, template_bytes
from bnnmcu.backend.plan import KernelChoice, Plan, make_plan
from bnnmcu.backend.project import fixed_files
from bnnmcu.boards import CORES, Board, all_boards
from bnnmcu.graph import Graph
from bnnmcu.toolchain import compiler

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "bnnmcu" / "backend" / "code_sizes.json"
sys.path.insert(0, str(ROOT / "tests" / "support"))

#: Probe networks are taken from this many, until every kernel occurred so often.
CANDIDATES, OCCURRENCES = 300, 8
#: Around these the network's numbers are varied, one after the other.
BASE = {"LAYERS": 4, "CLASSES": 10, "LOGIT_BYTES": 4, "INPUT_BYTES": 784, "ARENA_WORDS": 600}
LAYERS = (*range(1, 33), 40, 64, 128, 255)
CLASSES = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 32, 64, 100, 128, 256, 400, 512, 1000, 2000)
INPUTS = (1, 4, 16, 64, 128, 192, 256, 512, 784, 1024, 3072, 8192, 16384, 32768, 65000)
RINGS = tuple(1 << n for n in range(6, 19))
#: The core that every compiler is measured for.
EVERY_COMPILER = "cortex-m4f"
#: Their sizes are formulas in bnnmcu/backend/memory.py.
FORMULAS = ("arena", "layer_ticks", "reply_words", "request_words", "rx_ring")

_LAYER = re.compile(r"\.bnn_layer(\d+)(_\w+)?$")


def model_header(probe: Plan, values: Mapping[str, int]) -> bytes:
    """``bnn_model.h`` with other numbers in it."""
    text = model_sources(probe)["bnn_model.h"].decode()
    for name, value in values.items():
        text, found = re.subn(rf"(#define BNN_MODEL_{name}) \d+", rf"\g<1> {value}", text)
        assert found == 1, name
    return text.encode()


#: Families of plain kernels that are never offered as fast ones: a plain plan has them all, and
#: that each of their functions occurs is checked by bnn_kernels.h.
PLAIN = {"add", "affine", "clamp", "integer", "logits", "max-pool", "sum-pool", "threshold"}


def families() -> set[str]:
    """Names of all kinds of kernels that a plan can choose from."""
    tables = (ROOT / "bnnmcu" / "backend" / "costs").glob("*.json")
    found = {n for path in tables for n in json.loads(path.read_text()).get("families", {})}
    return found - PLAIN


def probes() -> list[Plan]:
    """Networks in which every kernel occurs; the same ones each time."""
    from random_dags import random_dag
    from random_first import random_first, random_single

    declared = re.findall(
        r"^void (bnn_\w+)\(", template_bytes("runtime/bnn_kernels.h").decode(), re.M
    )
    seen = Counter(dict.fromkeys(declared, 0))
    wanted = [KernelChoice("plain"), *(KernelChoice(force={"*": f}) for f in sorted(families()))]
    options: Counter[str] = Counter()
    chosen = []

    def graphs() -> Iterator[Graph]:
        for seed in range(CANDIDATES):
            yield random_dag(seed)
            # Shapes that few of the others have.
            if seed < CANDIDATES // 5:
                yield random_first(seed, fir=seed % 2 == 0)
                yield random_single(seed, drawn=seed % 2 == 0)

    for graph in graphs():
        for choice in wanted:
            plan = make_plan(graph, choice)
            options.update((step.option or "plain").partition("/")[0] for step in plan.steps)
            if any(seen[step.kernel] < OCCURRENCES for step in plan.steps):
                chosen.append(plan)
                seen.update(step.kernel for step in plan.steps)
    absent = [kernel for kernel, count in seen.items() if not count]
    absent += sorted(families() - options.keys())
    if absent:
        raise SystemExit(f"no probe network uses {', '.join(absent)}")
    return chosen


def points() -> Iterator[tuple[str, int, dict[str, int]]]:
    """Axis, value and what is different there."""
    yield from (("layers", n, {"LAYERS": n}) for n in LAYERS)
    for width in (4, 8):
        for n in CLASSES:
            yield f"classes_{width}", n, {"CLASSES": n, "LOGIT_BYTES": width}
    yield from (("input", n, {"INPUT_BYTES": n}) for n in INPUTS)


def changes(unit: str, base: Iterable[Row], other: Iterable[Row]) -> dict[str, list[Any]]:
    """By section: how many bytes more the other has, and which symbols only it needs."""
    before = {row.name: row for row in base}
    found: dict[str, list[Any]] = {}
    for row in other:
        old = before[row.name]
        # The sizes of these are formulas, and nothing is known of them here.
        size = 0 if row.name.removeprefix(".bss.") in FORMULAS else row.size - old.size
        needs = sorted(set(row.needs) - set(old.needs))
        if size or needs:
            found[f"{unit}:{row.name}"] = [size, needs]
    return found


def measure_grid(bench: Bench, units: Mapping[str, list[Row]], probe: Plan) -> dict[str, Any]:
    """What becomes of the sources that depend on the network's numbers."""
    grid: dict[str, Any] = defaultdict(dict)
    using = [unit for unit in units if depends_on_model(bench, unit)]

    def at(point: tuple[str, int, dict[str, int]]) -> tuple[str, int, dict[str, list[Any]]]:
        axis, value, values = point
        headers = f"{axis}{value}"
        bench.write(f"{headers}/bnn_model.h", model_header(probe, BASE | values))
        found: dict[str, list[Any]] = {}
        for unit in using:
            found |= changes(unit, units[unit], bench.compile(unit, model=headers))
        return axis, value, found

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for axis, value, found in pool.map(at, points()):
            grid[axis][str(value)] = found
    return dict(grid)


def depends_on_model(bench: Bench, unit: str) -> bool:
    """Whether a source includes ``bnn_model.h``, by whatever way."""
    done = subprocess.run(
        [*bench.command, "-Imodel", "-Iboard", "-Iinclude", "-MM", f"src/{unit}"],
        cwd=bench.folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return "bnn_model.h" in done.stdout


def measure_board(bench: Bench) -> dict[str, Any]:
    """The drivers of one board, and how the size of the receive ring changes them."""
    units = {name: bench.compile(name) for name in bench.board.port_sources}
    ring: dict[str, dict[str, list[Any]]] = {}
    for size in RINGS:
        headers = f"ring{size}"
        bench.write(f"{headers}/bnn_board.h", board_header(bench.board, size))
        ring[str(size)] = {}
        for name, rows in units.items():
            if b"BNN_BOARD_RX_BYTES" in template_bytes(f"port/{name}"):
                ring[str(size)] |= changes(name, rows, bench.compile(name, board=headers))
    return {
        "facts": board_facts(bench.board),
        "grid": {"ring": ring},
        "units": {name: [row.to_list() for row in rows] for name, rows in units.items()},
    }


def measure_steps(bench: Bench, plans: Sequence[Plan]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the generated source consists of: common figures, and those of each kernel."""

    def compiled(at: int) -> list[Row]:
        for name, text in model_sources(plans[at]).items():
            bench.write(f"probe{at}/{name}", text)
        return bench.compile(MODEL_UNIT, model=f"probe{at}", source=f"probe{at}")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, range(len(plans))))
    code: dict[str, list[int]] = defaultdict(list)
    constants: dict[str, set[int]] = defaultdict(set)
    needs: dict[str, set[str]] = defaultdict(set)
    common: dict[str, set[Any]] = defaultdict(set)
    aligns: dict[str, set[int]] = defaultdict(set)
    for plan, rows in zip(plans, objects, strict=True):
        own = {symbol for row in rows for symbol in row.symbols}
        added: dict[int, Counter[str]] = defaultdict(Counter)
        fixed = 0
        for row in rows:
            found = _LAYER.search(row.name)
            if found:
                at = int(found[1])
                step = plan.steps[at]
                outside = {generic(name, plan) for name in row.needs if name not in own}
                needs[step.kernel] |= outside
                table = next((c for c in step.constants if row.name.endswith("." + c.symbol)), None)
                if table is not None:
                    assert row.size == table.flash_bytes, row
                    aligns[table.c_type].add(row.align)
                else:
                    added[at]["code" if row.name.startswith(".text") else "constants"] += row.size
            elif row.name.startswith(".rodata.str"):
                common["string_align"].add(row.align)
            elif row.name == ".rodata.bnn_layers":
                assert row.size % len(plan.steps) == 0
                common["layer"].add(row.size // len(plan.steps))
            else:
                fixed += row.size
            if plan.planes and not found:
                common["needs"] |= {generic(n, plan) for n in row.needs if n not in own}
        common["fixed"].add(fixed)
        for at, sizes in added.items():
            kernel = plan.steps[at].kernel
            # As the linker counts: functions are aligned.
            code[kernel].append(-(-sizes["code"] // 4) * 4)
            constants[kernel].add(sizes["constants"])
    single = {name: common[name] for name in ("layer", "fixed", "string_align")}
    for what, seen in {**constants, **aligns, **single}.items():
        if len(seen) != 1:
            raise SystemExit(f"{what} has several sizes: {seen}")
    model = {name: common[name].pop() for name in ("layer", "fixed", "string_align")}
    model["table_align"] = {c_type: seen.pop() for c_type, seen in sorted(aligns.items())}
    model["needs"] = sorted(common["needs"])
    steps = {
        kernel: {
            "code": round(sum(sizes) / len(sizes), 1),
            "spread": max(sizes) - min(sizes),
            "constants": constants[kernel].pop(),
            "needs": sorted(needs[kernel]),
        }
        for kernel, sizes in sorted(code.items())
    }
    return model, steps


def generic(symbol: str, plan: Plan) -> str:
    """A symbol with the name of the generator left open."""
    name: str = plan.graph.generator
    return symbol.replace(name, "{generator}") if plan.planes else symbol


def measure_externals(
    bench: Bench, units: Mapping[str, Sequence[Row]], probe: Plan
) -> dict[str, dict[str, int]]:
    """What the compiler's own library adds for each symbol that no source defines."""
    for name, source in model_sources(probe).items():
        bench.write(f"model/{name}", source)
    rows = [row for unit in units.values() for row in unit]
    rows += bench.compile(MODEL_UNIT, source="model")
    defined = {symbol for row in rows for symbol in row.symbols}
    text = linker_script(bench.board).decode()
    missing = {
        name
        for row in rows
        for name in row.needs
        if name not in defined and f"{name} =" not in text
    }
    return {name: library_pieces(bench, name) for name in sorted(missing)}


def library_pieces(bench: Bench, symbol: str) -> dict[str, int]:
    """The functions that the compiler's library brings in for a symbol, and their bytes."""
    target = bench.folder / "external.o"
    bench.call(
        [
            *(*bench.tool.command, *bench.tool.machine, "-nostdlib", "-r", f"-Wl,-u,{symbol}"),
            *(*bench.tool.libraries, "-o", str(target)),
        ]
    )
    found: dict[tuple[int, int], tuple[str, int]] = {}
    with target.open("rb") as stream:
        for item in ELFFile(stream).get_section_by_name(".symtab").iter_symbols():
            if item["st_size"]:
                # One function may have several names.
                place = (item["st_shndx"], item["st_value"])
                piece = (item.name, item["st_size"])
                found[place] = min(piece, found.get(place, piece))
    if not found:
        raise SystemExit(f"{bench.board.core}: nothing is measured of {symbol}")
    return dict(sorted(found.values()))


def measured_boards(core: str) -> list[Board]:
    """One board for each set of drivers that the boards of a core have."""
    found: dict[str, Board] = {}
    for board in all_boards():
        if board.core == core:
            found.setdefault(json.dumps(board_facts(board), sort_keys=True), board)
    return list(found.values())


def measure(toolchain: str, plans: Sequence[Plan]) -> dict[str, Any]:
    """Everything of one compiler."""
    cores: dict[str, Any] = {}
    version = ""
    for core in sorted({board.core for board in all_boards()}):
        if toolchain != "gcc" and core != EVERY_COMPILER:
            continue
        boards = measured_boards(core)
        with tempfile.TemporaryDirectory() as name:
            bench = Bench(toolchain, boards[0], Path(name))
            version = bench.tool.version
            bench.write("model/bnn_model.h", model_header(plans[0], BASE))
            sources = [path.name for path in sorted((bench.folder / "src").glob("*.c"))]
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                units = dict(zip(sources, pool.map(bench.compile, sources), strict=True))
            grid = measure_grid(bench, units, plans[0])
            model, steps = measure_steps(bench, plans)
            externals = measure_externals(bench, units, plans[0])
        cores[core] = {
            "units": {
                unit: [row.to_list() for row in rows]
                for unit, rows in units.items()
                if unit not in boards[0].port_sources
            },
            "model": model,
            "steps": steps,
            "externals": externals,
            "grid": grid,
            "boards": {},
        }
        for board in boards:
            with tempfile.TemporaryDirectory() as name:
                cores[core]["boards"][board.name] = measure_board(
                    Bench(toolchain, board, Path(name))
                )
    return {"version": version, "cores": cores}


def digest() -> str:
    """SHA-256 over the sources and flags that sizes depend on."""
    hashed = hashlib.sha256()
    parts: list[bytes] = [repr(compiler.LINK_FLAGS).encode(), repr(dict(CORES)).encode()]
    for name in ("bnn_model.c.j2", "bnn_model.h.j2", "linker.ld.j2"):
        parts.append(template_bytes(f"project/{name}"))
    files: dict[str, bytes] = {}
    for core in sorted({board.core for board in all_boards()}):
        for board in measured_boards(core):
            parts.append(repr((board.name, board.core, board.port_sources)).encode())
            header = board_header(board, RING).splitlines()
            # Its comments name versions.
            parts.append(b"\n".join(line for line in header if line.startswith(b"#define")))
            files |= fixed_files(board)
    parts += [name.encode() + data for name, data in sorted(files.items())]
    for part in parts:
        hashed.update(len(part).to_bytes(8, "little") + part)
    return hashed.hexdigest()


def formatted(value: Any, indent: str = "") -> str:
    """JSON in which what fits a line stands on one."""
    line = json.dumps(value)
    if not isinstance(value, (dict, list)) or len(line) + len(indent) <= 100:
        return line
    more = indent + " "
    if isinstance(value, list):
        rows = [f"{more}{formatted(item, more)}" for item in value]
        return "[\n" + ",\n".join(rows) + f"\n{indent}]"
    rows = [f"{more}{json.dumps(key)}: {formatted(item, more)}" for key, item in value.items()]
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what code takes.")
    parser.add_argument("--check", action="store_true", help="only compare sources and table")
    arguments = parser.parse_args()
    now = digest()
    if arguments.check:
        if json.loads(TABLE.read_text())["sources_sha256"] == now:
            return 0
        print("C sources or flags have changed: run benchmarks/code_sizes.py", file=sys.stderr)
        return 1
    plans = probes()
    table: dict[str, Any] = {
        "about": "Written by benchmarks/code_sizes.py; sections are [name, bytes, alignment, "
        "symbols, needed symbols].",
        "sources_sha256": now,
        "toolchains": {name: measure(name, plans) for name in ("gcc", "zig")},
    }
    TABLE.write_text(formatted(table) + "\n", encoding="utf-8")
    for name, entry in table["toolchains"].items():
        for core, found in entry["cores"].items():
            for kernel, sizes in found["steps"].items():
                print(name, entry["version"], core, kernel, sizes["code"], f"+-{sizes['spread']}")
            print(name, "library:", ", ".join(found["externals"]) or "nothing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
