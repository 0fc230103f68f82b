"""Why a chip started: its flags, read and cleared, with a variable in the register's place."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bnnmcu.backend.emit import template_bytes
from bnnmcu.boards import all_boards

#: Every family that tells, by one of its boards.
TELLING = {board.family: board for board in all_boards() if "RESET_ADDRESS" in board.macros}
POWER, PIN, SOFTWARE, WATCHDOG = "POWER", "PIN", "SOFTWARE", "WATCHDOG"
CASES = [
    ((), "UNKNOWN"),
    ((PIN,), PIN),
    # A chip pulls its own reset pin whatever the cause.
    ((POWER, PIN), POWER),
    ((SOFTWARE, PIN), SOFTWARE),
    ((WATCHDOG, PIN), WATCHDOG),
    # Flags that nobody cleared before the power went: power is the last cause.
    ((WATCHDOG, POWER, PIN), POWER),
]

#: Where power is the absence of flags, and the pin's flag makes the others worthless.
FLAGLESS_POWER = [
    ((), POWER),
    ((PIN,), PIN),
    ((SOFTWARE,), SOFTWARE),
    ((WATCHDOG,), WATCHDOG),
    ((SOFTWARE, PIN), PIN),
    # A flag of no interest, such as waking up: neither power nor anything known.
    (("WAKE",), "UNKNOWN"),
]

MAIN = """
#include <stdio.h>
#include "bnn_port.h"
#include "bnn_board.h"

uint32_t chip_flags;
const uint8_t bnn_image_start[1], bnn_image_end[1];
uint32_t bnn_port_kept[BNN_PORT_KEPT_WORDS];

int main(void)
{
    chip_flags = SET;
    unsigned first = bnn_port_reset_cause();
    unsigned cleared = chip_flags == BNN_BOARD_RESET_CLEAR_MASK;
    chip_flags = 0xffffffffu;
    printf("%u %u %u\\n", first, bnn_port_reset_cause(), cleared);
    return 0;
}
"""


@pytest.mark.parametrize("family", sorted(TELLING))
def test_the_cause_is_read_once_and_cleared(family: str, tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (gcc or clang) on this machine")
    macros = {name: value for name, value in TELLING[family].macros.items() if "RESET_" in name}
    macros["RESET_ADDRESS"] = "(uintptr_t)&chip_flags"
    macros["RESET_WAKE_MASK"] = 1 << 16
    lines = [f"#define BNN_BOARD_{name} {value}" for name, value in macros.items()]
    (tmp_path / "bnn_board.h").write_text(
        "#include <stdint.h>\nextern uint32_t chip_flags;\n" + "\n".join(lines) + "\n"
    )
    for name in ("bnn_port.h", "bnn_port_state.c", "bnn_small.h"):
        (tmp_path / name).write_bytes(template_bytes(f"port/{name}"))
    (tmp_path / "main.c").write_text(MAIN)
    header = (tmp_path / "bnn_port.h").read_text()
    for given, cause in FLAGLESS_POWER if "RESET_NONE_IS_POWER" in macros else CASES:
        value = " | ".join(f"BNN_BOARD_RESET_{flag}_MASK" for flag in given) or "0u"
        subprocess.run(
            [
                *(compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", f"-DSET=({value})"),
                *("main.c", "bnn_port_state.c", "-o", "reset"),
            ],
            cwd=tmp_path,
            check=True,
        )
        done = subprocess.run([tmp_path / "reset"], capture_output=True, text=True, check=True)
        number = header.split(f"BNN_RESET_{cause} = ")[1][0]
        assert done.stdout.split() == [number, number, "1"], given


def test_the_common_chips_tell() -> None:
    assert {"stm32f4", "stm32f1", "nrf51", "nrf52"} <= set(TELLING)
    # nRF51 Series Reference Manual 12.2: POWER.RESETREAS, whose flags 1 clears.
    assert {TELLING[name].macros["RESET_ADDRESS"] for name in ("nrf51", "nrf52")} == {"0x40000400u"}
