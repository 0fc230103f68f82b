"""How deep the stack can get: frames and calls as gcc reports them, added up.

``-fcallgraph-info=su`` writes a ``.ci`` file beside each object: the frame of
every function and whom it calls.  It does not say where calls through pointers
lead; for those of the runtime and the server that is known, and the objects
are searched for any other function whose address is taken.  What cannot be
bounded is reported as that, never left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnnmcu.boards import Board
from bnnmcu.toolchain.elf import opened

__all__ = ["FLAGS", "StackBound", "reports_calls", "stack_bound"]

FLAGS = ("-fcallgraph-info=su",)
"""What gcc needs to be told; the code stays the same."""

_OLDEST_GCC = 10

_NODE = re.compile(r'node: \{ title: "([^"]+)" label: "[^"]*\\n(\d+) bytes \(([a-z,]+)\)" \}')
_EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')
_INDIRECT = "__indirect_call"

_RESET, _FAULT_ENTRY, _FAULT_REPORT = "bnn_reset", "bnn_fault_entry", "bnn_fault_report"

#: Who calls through a pointer, and which functions that can be.
_POINTERS: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = tuple(
    (re.compile(callers), re.compile(callees))
    for callers, callees in (
        # The layers of the model, and the hook that the server sets.
        (r"bnn_(run_from|infer|redraw)", r"bnn_layer\d+_run|count_layer"),
        (r"bnn_(sample|conv_\w*drawn\w*)", r"bnn_draw_\w+"),
        (r"bnn_frame_send", r"bnn_port_write"),
        # The class kernels take a routine for the width of their numbers.
        (
            r"bnn_(conv_class\w*|classes_run|sum_classes|fold\w*|add_numbers)",
            r"bnn_(run_places|run_offsets|run_steps|add_\d+)",
        ),
    )
)

# Routines in assembly: gcc sees no frame of theirs.  None stacks more than this: nine
# registers, and up to five words of its own; those of bnn_toom.c, up to 31.
_ASSEMBLY: tuple[tuple[re.Pattern[str], int], ...] = (
    (
        re.compile(
            r"bnn_(run_places|run_offsets|run_steps|add_\d+|add_planes|add_rows|sign|sign_lanes|"
            r"collect|finish|approach|arrive|put|put_block)"
        ),
        64,
    ),
    (re.compile(r"bnn_toom_(bits_four|bits_fours|sums)"), 160),
)

# Routines of libgcc for what a core has no instruction for; a Cortex-M0's 64-bit product
# and its helper stack most, seven registers (GCC 12.2).
_LIBRARY = re.compile(
    r"__(aeabi_(u?idiv|u?idivmod|lmul|llsl|llsr|lasr)|clzsi2|clzdi2|ctzsi2|popcountsi2)"
)
_LIBRARY_FRAME = 64
# What a Cortex-M0's helpers for tables of jumps stack (__gnu_thumb1_case_*): gcc reports
# no call to them, and they call nothing.
_SWITCH = 8

# Relocations of branches: ELF for the Arm Architecture, 4.6.1.6.  All others
# of a function's symbol take its address.
_BRANCHES = frozenset({1, 10, 28, 29, 30, 51, 102, 103})
_ALLOCATED = 0x2

# What the core stacks on an exception, and a word that aligns it: ARMv7-M B1.5.6,
# B1.5.7.  With an FPU there is room for its registers, written or not.
_FRAME, _FPU_FRAME = 32 + 4, 104 + 4


@dataclass(frozen=True)
class StackBound:
    """The most stack that a firmware can use.

    Attributes:
        bytes: the bound; None if there is none.
        path: the calls that need most, outermost first; interrupts come on top.
        interrupt: bytes of that for an interrupt in the deepest place, and a
            fault within it.
        reasons: why there is no bound.
    """

    bytes: int | None
    path: tuple[str, ...] = ()
    interrupt: int = 0
    reasons: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For ``--json`` and the build's stamp."""
        return {
            "bytes": self.bytes,
            "path": list(self.path),
            "interrupt": self.interrupt,
            "reasons": list(self.reasons),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StackBound:
        """The reverse of :meth:`to_dict`."""
        return cls(data["bytes"], tuple(data["path"]), data["interrupt"], tuple(data["reasons"]))


def reports_calls(version: str) -> bool:
    """Whether a gcc of that version knows :data:`FLAGS`."""
    major = version.partition(".")[0]
    return major.isdigit() and int(major) >= _OLDEST_GCC


@dataclass
class _Calls:
    """Functions by their titles: ``name``, or ``src/file.c:name`` if file-scope."""

    frames: dict[str, int] = field(default_factory=dict)
    dynamic: set[str] = field(default_factory=set)
    edges: dict[str, set[str]] = field(default_factory=dict)

    def add(self, text: str) -> None:
        for title, size, kind in _NODE.findall(text):
            frames = [frame for routine, frame in _ASSEMBLY if routine.fullmatch(_name(title))]
            self.frames[title] = frames[0] if frames and int(size) == 0 else int(size)
            # "dynamic,bounded" has a known most.
            if kind == "dynamic":
                self.dynamic.add(title)
        for source, target in _EDGE.findall(text):
            self.edges.setdefault(source, set()).add(target)


class _Walk:
    """The deepest way through the calls, with what stands against a bound."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._known: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._open: list[str] = []
        self.reasons: list[str] = []

    def deepest(self, title: str) -> tuple[int, tuple[str, ...]]:
        """Bytes and path from a function on."""
        if title in self._known:
            return self._known[title]
        if title in self._open:
            cycle = [*self._open[self._open.index(title) :], title]
            self._refuse(f"recursion: {' > '.join(map(_name, cycle))}")
            return 0, ()
        if title not in self._calls.frames and _LIBRARY.fullmatch(_name(title)):
            return _LIBRARY_FRAME, (_name(title),)
        if title not in self._calls.frames:
            self._refuse(f"the frame of {_name(title)} is not known")
            return 0, ()
        if title in self._calls.dynamic:
            self._refuse(f"{_name(title)} has an array of variable length")
        self._open.append(title)
        below = max(
            (self.deepest(target) for target in self._targets(title)),
            default=(0, ()),
        )
        self._open.pop()
        result = self._calls.frames[title] + below[0], (_name(title), *below[1])
        self._known[title] = result
        return result

    def _targets(self, title: str) -> list[str]:
        targets = set(self._calls.edges.get(title, ()))
        if _INDIRECT in targets:
            targets.remove(_INDIRECT)
            found = [
                other
                for caller, callee in _POINTERS
                if caller.fullmatch(_name(title))
                for other in self._calls.frames
                if callee.fullmatch(_name(other))
            ]
            if not found:
                self._refuse(f"{_name(title)} calls through a pointer that may lead anywhere")
            targets.update(found)
        return sorted(targets)

    def _refuse(self, reason: str) -> None:
        if reason not in self.reasons:
            self.reasons.append(reason)


def _name(title: str) -> str:
    """A function's name without its file and what gcc appends to its parts."""
    return title.rpartition(":")[2].partition(".")[0]


def stack_bound(objects: Iterable[Path], board: Board) -> StackBound:
    """The bound for a firmware made of these objects, each with its ``.ci`` file beside it.

    The deepest path from reset, an interrupt in its deepest place (all have one
    priority, so none interrupts another), and a fault within that.  What
    reports a fault starts again at the top of the stack.

    Raises:
        ToolchainError: an object is damaged.
    """
    calls = _Calls()
    handlers: set[str] = set()
    taken: set[str] = set()
    missing = []
    for path in objects:
        report = path.with_suffix(".ci")
        if not report.is_file():
            missing.append(path.stem)
            continue
        calls.add(report.read_text(encoding="utf-8", errors="replace"))
        in_vectors, elsewhere = _addresses(path)
        handlers |= in_vectors
        taken |= elsewhere
    walk = _Walk(calls)
    thread, path_names = walk.deepest(_RESET)
    report_depth, _ = walk.deepest(_FAULT_REPORT)
    # The table also holds the stack's top, which is no function.
    interrupts = sorted(handlers & calls.frames.keys() - {_RESET, _FAULT_ENTRY})
    deepest = max((walk.deepest(name)[0] for name in interrupts), default=0)
    frame = _FPU_FRAME if "-mfloat-abi=hard" in board.machine_flags else _FRAME
    on_top = frame + deepest + frame + (_SWITCH if board.core == "cortex-m0" else 0)
    functions = set(map(_name, calls.frames))
    reasons = [f"{name}.c was compiled without a report" for name in missing]
    reasons += walk.reasons
    reasons += [
        f"the address of {name} is taken, and nothing tells who calls it"
        # The entry jumps to the report, by its address where that is too far for a branch.
        for name in sorted(functions & taken - {_FAULT_REPORT})
        if not any(callee.fullmatch(name) for _, callee in _POINTERS)
    ]
    total = None if reasons else max(thread + on_top, report_depth)
    return StackBound(total, path_names, on_top, tuple(reasons))


def _addresses(path: Path) -> tuple[set[str], set[str]]:
    """Names whose address an object takes: in the vector table, and elsewhere."""
    vectors: set[str] = set()
    elsewhere: set[str] = set()
    with opened(path) as elf:
        table = elf.get_section_by_name(".symtab")
        for section in elf.iter_sections():
            if section["sh_type"] != "SHT_REL":
                continue
            place = elf.get_section(section["sh_info"])
            # Debug information is not loaded and calls nothing.
            if not place["sh_flags"] & _ALLOCATED:
                continue
            names = vectors if place.name == ".vectors" else elsewhere
            for entry in section.iter_relocations():
                if entry["r_info_type"] not in _BRANCHES:
                    symbol = table.get_symbol(entry["r_info_sym"])
                    if symbol["st_info"]["type"] == "STT_SECTION":
                        names.add(elf.get_section(symbol["st_shndx"]).name.removeprefix(".text."))
                    else:
                        names.add(symbol.name)
    return vectors, elsewhere
