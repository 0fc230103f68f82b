"""The cycle model on short sequences whose cycles Arm's manuals state."""

from __future__ import annotations

from pathlib import Path

import pytest
from cycle_rig import Instruction, assemble, build_model, drive
from needs import need_toolchain

from bnnmcu.boards import load_board
from bnnmcu.toolchain.cycle_model import cycle_model

M0, M3, M4, M7 = 0, 3, 4, 7

# DDI 0439 (Cortex-M4) table 3-1 and the notes below it; P, the refill of the pipeline, is
# 1 to 3 there and 2 here.  A dot is an instruction that is jumped to from the one before.
_M4 = {
    "adds r0, #1; adds r1, #1": 2,
    "ldr r0, [r1]; ldr r1, [r2]": 3,
    "ldr r0, [r1, r2]; str r0, [r3, #20]": 3,
    "ldr r0, [r1, r2]; str r1, [r3, r2]": 3,
    "ldr r0, [r1, r5]; ldr r1, [r2]; ldr r2, [r3, #4]": 4,
    "ldr.w r8, [r9, r10, lsl #2]; ldrh.w r11, [r0], #2": 3,
    "ldr r1, [r5]; ldr r0, [r1]": 4,  # not pipelined: the second needs the first
    "ldrb r1, [r5]; ldrsh r0, [r4, r3]": 3,
    "str r0, [r1]; str r0, [r1, #4]": 2,
    "str r0, [r1, r2]; ldr r3, [r4]": 4,  # nothing is pipelined behind a store
    "str.w r0, [r1, r2, lsl #2]": 2,
    "adds r1, #4; ldr r0, [r1]": 4,  # no forwarding to an address
    "adds r2, #4; ldr r0, [r1]": 3,
    "eor.w r8, r9, r10; str.w r0, [r8]": 3,
    "ldm r0, {r1-r3}": 4,
    "ldmia.w r0!, {r1-r3, r8}": 5,
    "stm r0!, {r1-r7}": 8,
    "push {r4, lr}": 3,
    "push.w {r4-r11, lr}": 10,
    "pop {r4, r5}": 3,
    "ldrd r0, r1, [r2]; ldr r3, [r4]": 5,
    "strd r0, r1, [r2]": 3,
    "muls r0, r1, r0": 1,
    "mla r0, r1, r2, r3; smlad r0, r1, r2, r0; usada8 r0, r1, r2, r0": 3,
    "umull r0, r1, r2, r3; umlal r0, r1, r2, r3; umaal r0, r1, r2, r3": 3,
    "movs r0, #1; bne .+4": 2,  # not taken
    "b .+20 ; . nop": 4,
    "bne .+20 ; . nop": 4,
    "beq.w .+20 ; . nop": 4,
    "cbz r0, .+20 ; . nop": 4,
    "bl .+20 ; . nop": 4,
    "bx lr ; . nop": 4,
    "blx r3 ; . nop": 4,
    "pop {r4, pc} ; . nop": 6,
    "ldmia.w sp!, {r4-r11, pc} ; . nop": 13,
    "mov pc, r0 ; . nop": 4,
    "ldr.w pc, [r0] ; . nop": 6,  # blocks: at least 5
    "tbb [r0, r1] ; . nop": 7,  # blocks: at least 6
    "mrs r0, primask": 2,
    "ite eq; moveq r0, #1; movne r0, #2": 3,
    "uxtab16 r0, r1, r2; uxth r3, r4; rev r5, r6; ubfx r7, r0, #3, #4": 4,
    # Table 7-1: floating point.
    "vadd.f32 s0, s1, s2; vmul.f32 s3, s4, s5": 2,
    "vadd.f32 s0, s1, s2; vmul.f32 s3, s0, s5": 3,  # one later where the next one needs it
    "vmla.f32 s0, s1, s2": 3,
    "vfma.f32 s0, s1, s2": 3,
    "vdiv.f32 s0, s1, s2": 14,
    "vsqrt.f32 s0, s1": 14,
    "vmov s0, r0; vmov r1, s0": 2,
    "vmov.f32 s0, s1; vmov.f32 s2, #1.0": 2,
    "vmov r0, r1, s2, s3": 2,
    "vmov d1, r0, r1": 2,
    "vcmp.f32 s0, s1; vmrs APSR_nzcv, fpscr": 2,
    "vcvt.s32.f32 s0, s1": 1,
    "vldr s0, [r0]": 2,
    "vldr d0, [r0]": 3,
    "vstr s0, [r0]": 2,
    "vldmia r0!, {s0-s3}": 5,
    "vpush {d8-d9}": 5,
}
# DDI 0337 (Cortex-M3): as the M4, but for its multiplier; UMULL 3 to 5, UMLAL 4 to 7.
_M3 = {
    "ldr r0, [r1]; ldr r1, [r2]": 3,
    "muls r0, r1, r0": 1,
    "mla r0, r1, r2, r3": 2,
    "umull r0, r1, r2, r3": 4,
    "umlal r0, r1, r2, r3": 5,
}
# DDI 0432 (Cortex-M0), table 3-1, with the multiplier of one cycle.
_M0 = {
    "adds r0, #1; lsls r0, r1, #2; uxtb r0, r0": 3,
    "muls r0, r1, r0": 1,
    "ldr r0, [r1]; ldr r1, [r2]": 4,
    "str r0, [r1]; strb r0, [r1, r2]": 4,
    "ldr r0, [pc, #4]": 2,
    "ldm r0, {r1-r3}": 4,
    "stm r0!, {r1-r3}": 4,
    "push {r4, lr}": 3,
    "pop {r4, r5}": 3,
    "pop {r4, pc} ; . nop": 7,
    "b .+20 ; . nop": 4,
    "bne .+20 ; . nop": 4,
    "bne .+4; nop": 2,
    "bl .+20 ; . nop": 5,
    "bx lr ; . nop": 4,
    "blx r3 ; . nop": 4,
    "mrs r0, primask": 4,
    "dmb": 4,
}
# Not from a manual: what bnn_cycles.c says of itself.
_M7 = {
    "adds r0, #1; adds r1, #1": 1,
    "adds r0, #1; adds r0, #1": 2,
    "ldr r0, [r1]; adds r2, #1": 1,
    "ldr r0, [r1]; ldr r2, [r3]": 2,
    "ldr r0, [r1]; adds r0, #1": 3,
    "muls r0, r1, r0; muls r2, r3, r2": 2,
    "ldm r0, {r1-r4}": 2,
    "nop; b .+20 ; . nop": 2,
}
_CASES = [
    (core, code, cycles)
    for core, table in ((M4, _M4), (M3, _M3), (M0, _M0), (M7, _M7))
    for code, cycles in table.items()
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("cycles"))


def _executed(code: str, folder: Path) -> list[Instruction]:
    """In order; what is jumped to stands far behind, on a whole word."""
    parts = [part.strip() for part in code.split(";")]
    far = "\n.balign 4\n.skip 16\n"
    text = "\n".join(far + part[2:] if part.startswith(". ") else part for part in parts)
    found = assemble(text, folder)
    # What fills the gap is no part of the sequence.
    return found[: len(parts) - 1] + found[-1:]


@pytest.mark.parametrize(("core", "code", "cycles"), _CASES)
def test_sequences_take_the_cycles_of_the_manual(
    model: Path, tmp_path: Path, core: int, code: str, cycles: int
) -> None:
    need_toolchain("gcc")
    executed = [instruction.command("x") for instruction in _executed(code, tmp_path)]
    assert drive(model, [f"c {core}", *executed, "="]) == [[len(executed), cycles, 0]]


@pytest.mark.parametrize("code", ["sdiv r0, r1, r2", "udiv r0, r1, r2"])
def test_a_division_is_within_what_the_manual_allows(
    model: Path, tmp_path: Path, code: str
) -> None:
    need_toolchain("gcc")
    command = _executed(code, tmp_path)[0].command("x")
    assert 2 <= drive(model, ["c 4", command, "="])[0][1] <= 12


def _nops(first: int, count: int, size: int) -> list[str]:
    codes = {2: "1 bf00 0", 4: "2 f3af 8000"}
    return [f"x {first + size * i:x} {codes[size]}" for i in range(count)]


# Lines of 16 bytes, 5 wait states; stalls by hand from RM0390 3.4.2.
_FLASH = [
    ("the first line is waited for", "64 8 1", _nops(0x100, 8, 2), 5),
    ("then the next one comes meanwhile", "64 8 1", _nops(0x100, 24, 2), 5),
    ("but four cycles hide only four", "64 8 1", _nops(0x100, 12, 4), 5 + 1 + 1),
    ("without prefetch nothing is hidden", "64 8 0", _nops(0x100, 24, 2), 15),
    ("a loop in one line costs one read", "64 8 1", _nops(0x100, 8, 2) * 5, 5),
    ("one over two lines costs two at most", "64 8 0", _nops(0x100, 16, 2) * 5, 10),
    ("without a cache each round costs both", "0 0 0", _nops(0x100, 16, 2) * 5, 50),
    ("RAM does not wait", "64 8 1", _nops(0x20000000, 24, 2), 0),
    ("data: one read a line", "64 8 1", ["r 200", "r 204", "r 20e"], 5),
    ("eight lines are kept", "64 8 1", [f"r {0x200 + 16 * i:x}" for i in range(8)] * 3, 40),
    ("of nine in turn none is", "64 8 1", [f"r {0x200 + 16 * i:x}" for i in range(9)] * 3, 135),
    ("data in RAM do not wait", "64 8 1", ["r 20000000"], 0),
]


@pytest.mark.parametrize(("caches", "commands", "stalls"), [row[1:] for row in _FLASH])
def test_flash_stalls(model: Path, caches: str, commands: list[str], stalls: int) -> None:
    code_lines, data_lines, prefetch = caches.split()
    flash = f"f 0 80000 5 4 {code_lines} {data_lines} {prefetch}"
    assert drive(model, [flash, "c 4", *commands, "="])[0][2] == stalls


def test_no_opcode_overflows_the_decoder(model: Path) -> None:
    assert drive(model, ["z"])[0][0] > 1000


@pytest.mark.parametrize(
    ("board", "core", "wait_states", "said"),
    [
        ("nucleo_f446re", M4, 5, "5 wait states"),
        ("netduinoplus2", M4, 5, "5 wait states"),
        ("nucleo_f411re", M4, 0, "no wait states"),  # it keeps its reset clock
        ("mps2_m0", M0, 0, "no wait states"),
        ("mps2_an385", M3, 0, "no wait states"),
        ("mps2_an500", M7, 0, "no wait states"),
        ("nucleo_h743zi", M7, None, "not modelled"),
    ],
)
def test_boards_and_their_models(board: str, core: int, wait_states: int | None, said: str) -> None:
    found = cycle_model(load_board(board))
    assert found is not None
    assert (found.core, found.wait_states) == (core, wait_states)
    assert said in found.memory
    assert (found.flash is None) == (not wait_states)


@pytest.mark.parametrize("board", ["mps2_an505", "mps2_an547"])
def test_cores_without_a_model(board: str) -> None:
    assert cycle_model(load_board(board)) is None


def test_the_clock_is_the_one_that_runs() -> None:
    board = load_board("nucleo_f411re")
    for variant, clock_hz in ((board, 16_000_000), (board.with_full_clock(), 100_000_000)):
        found = cycle_model(variant)
        assert found is not None
        assert found.clock_hz == clock_hz
        assert bool(found.wait_states) == (clock_hz > 16_000_000)
