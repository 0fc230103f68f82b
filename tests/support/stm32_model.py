"""An STM32's RCC, GPIO and USART as the reference manuals describe them, on unicorn.

It is this file's reading of RM0008, RM0316, RM0351, RM0390, RM0410, RM0433,
RM0440, RM0444 and RM0456 and no measurement on a chip: a peripheral without its
clock is dead, a pin that is not given to the USART carries nothing, and what the
manuals forbid is noted.  Only the CPU is always the same, a Cortex-M4.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bnnmcu.boards import Board
from bnnmcu.boards.model import pin
from bnnmcu.toolchain.unicorn_board import UnicornBoard

__all__ = ["Stm32Model"]

#: RCC_CR after reset, and whether the USART is the one with SR and DR.
_FAMILIES = {
    "stm32f1": (0x83, True),
    "stm32f3": (0x83, False),
    "stm32f4": (0x83, True),
    "stm32f7": (0x83, False),
    "stm32g0": (0x500, False),
    "stm32g4": (0x500, False),
    "stm32h7": (0x25, False),
    "stm32l4": (0x63, False),
    "stm32u5": (0x35, False),
}
#: Where unicorn's stand-in has nothing: AHB and APB buses of the newer families.
_BUSES = ((0x4200_0000, 0x5F00_0000),)

_V1 = {"SR": 0x00, "DR": 0x04, "BRR": 0x08, "CR1": 0x0C, "CR2": 0x10, "CR3": 0x14}
_V2 = {
    "CR1": 0x00,
    "CR2": 0x04,
    "CR3": 0x08,
    "BRR": 0x0C,
    "SR": 0x1C,
    "ICR": 0x20,
    "RDR": 0x24,
    "TDR": 0x28,
}
_FE, _ORE, _RXNE, _TXE, _TC = 1 << 1, 1 << 3, 1 << 5, 1 << 7, 1 << 6
_RE, _TE, _RXNEIE = 1 << 2, 1 << 3, 1 << 5


class Stm32Model(UnicornBoard):
    """A chip that just came out of reset.

    Args:
        board: of an STM32 family.

    Attributes:
        forbidden: what the firmware did that the manuals forbid or that can have no effect.
        overrun: set it, and the USART says that it lost a byte until that is acknowledged.
        baud: of the other end.
        framing: set it, and the next byte has no stop bit.
    """

    def __init__(self, elf: Path, board: Board, *, count: bool = False) -> None:
        self.forbidden: list[str] = []
        self.overrun = False
        self.baud = board.uart.baud
        self.framing = False
        self._rcc_cr, self._old = _FAMILIES[board.family]
        self._at = _V1 if self._old else _V2
        self._enabled = (1 << 13) if self._old else (1 << 0)
        self._facts = {name: int(text.rstrip("u"), 0) for name, text in board.macros.items()}
        able = replace(board, emulator=replace(board.emulator, unicorn=True))
        super().__init__(elf, able, count=count)
        self._registers[self._facts["CLOCK_PROBE_ADDRESS"]] = self._rcc_cr

    def reg(self, address: int) -> int:
        """A register's value; what was never written reads 0."""
        return self._registers.get(address, 0)

    @property
    def divisor(self) -> int:
        """What the USART divides its clock by."""
        return self._uart("BRR")

    def _uart(self, name: str) -> int:
        return self.reg(self._board.uart.address + self._at[name])

    def _rule(self, kept: bool, text: str) -> bool:
        if not kept and text not in self.forbidden:
            self.forbidden.append(text)
        return kept

    def _make_cpu(self) -> Any:
        uc = super()._make_cpu()
        read, write = self._guarded(self._recall), self._guarded(self._remember)
        for start, end in _BUSES:
            uc.mmio_map(start, end - start, read, start, write, start)
        return uc

    def _clocked(self, what: str) -> bool:
        facts = self._facts
        on = self.reg(facts["UART_ENABLE_ADDRESS"]) >> facts["UART_ENABLE_BIT"] & 1
        return self._rule(bool(on), f"{what} without the USART's clock")

    def _remember(self, uc: Any, offset: int, size: int, value: int, start: int) -> None:
        port, inside = divmod(start + offset - self._facts["GPIO_ADDRESS"], 0x400)
        if 0 <= port < 11 and inside < 0x30:
            enable = self.reg(self._facts["GPIO_ENABLE_ADDRESS"])
            on = enable >> self._facts["GPIO_ENABLE_SHIFT"] + port & 1
            if not self._rule(bool(on), f"GPIO port {port} written without its clock"):
                return
        super()._remember(uc, offset, size, value, start)

    def _read_uart(self, _uc: Any, offset: int, _size: int, base: int) -> int:
        name = self._name(offset - base)
        if name is None or not self._clocked(f"{name} read"):
            return 0
        if name == "SR":
            on = self._uart("CR1") & self._enabled and self._uart("CR1") & _RE
            waits = _RXNE if self._input and on else 0
            wrong = _FE if self.framing and waits else 0
            return _TXE | _TC | waits | wrong | (_ORE if self.overrun else 0)
        if name in ("DR", "RDR"):
            if self._old:
                self.overrun = self.framing = False
            if not self._input:
                return 0
            self._taken += 1
            return self._input.popleft()
        return self._uart(name)

    def _write_uart(self, _uc: Any, offset: int, _size: int, value: int, base: int) -> None:
        name = self._name(offset - base)
        if name is None or not self._clocked(f"{name} written"):
            return
        if name in ("DR", "TDR"):
            self._send(value)
        elif name == "ICR":
            self.overrun = self.overrun and not value & _ORE
            self.framing = self.framing and not value & _FE
        else:
            if name in ("BRR", "CR2", "CR3"):
                off = not self._uart("CR1") & self._enabled
                self._rule(off or self._old, f"{name} written while the USART is on")
            self._registers[self._board.uart.address + self._at[name]] = value

    # Of a neighbour in the same page: nothing here uses one.
    def _name(self, register: int) -> str | None:
        return next((name for name, at in self._at.items() if at == register), None)

    def _send(self, value: int) -> None:
        cr1 = self._uart("CR1")
        self._rule(bool(cr1 & self._enabled and cr1 & _TE), "sent while the transmitter is off")
        self._rule(bool(cr1 & _RXNEIE), "no interrupt for received bytes")
        for pin_name, role in ((self._board.uart.tx, "TX"), (self._board.uart.rx, "RX")):
            self._rule(self._connected(*pin(pin_name), role), f"{role} is not on {pin_name}")
        rate = self._board.clock.reset_hz / max(1, self.divisor)
        wanted = self.baud
        self._rule(abs(rate / wanted - 1) < 0.02, f"{rate:.0f} baud and not {wanted}")
        self._output.append(value & 0xFF)

    def _connected(self, port: int, number: int, role: str) -> bool:
        base = self._facts["GPIO_ADDRESS"] + 0x400 * port
        if self._board.family == "stm32f1":
            mode = self.reg(base + 4 * (number // 8)) >> 4 * (number % 8) & 15
            # Alternate push-pull output at any speed; input, floating or pulled.
            return mode in ((9, 10, 11) if role == "TX" else (4, 8))
        alternate = self.reg(base + 0x20 + 4 * (number // 8)) >> 4 * (number % 8) & 15
        mode = self.reg(base) >> 2 * number & 3
        return mode == 2 and alternate == self._facts["UART_ALTERNATE"]
