"""What the STM32 families have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from bnnmcu.boards.model import Clock, Require, Uart, is_pin, pin

__all__ = ["BusClock", "Stm32V1Uart", "pin_macros"]


def pin_macros(uart: Uart) -> dict[str, int]:
    """GPIO port (A is 0) and number of both pins."""
    tx, rx = pin(uart.tx), pin(uart.rx)
    return {"TX_PORT": tx[0], "TX_PIN": tx[1], "RX_PORT": rx[0], "RX_PIN": rx[1]}


@dataclass(frozen=True)
class BusClock(Clock):
    """A clock with two peripheral buses, not divided after reset.

    Attributes:
        apb1_div, apb2_div: what the buses divide it by.
    """

    apb1_div: int
    apb2_div: int

    def bus_hz(self, bus: str) -> int:
        """The clock of ``"apb1"`` or ``"apb2"`` in Hz, once set up."""
        return self.hz // (self.apb1_div if bus == "apb1" else self.apb2_div)

    def uart_hz(self, uart: Uart) -> int:
        """The clock of its bus, once set up."""
        assert isinstance(uart, Stm32V1Uart)
        return self.bus_hz(uart.bus)

    def macros(self) -> dict[str, int]:
        """The dividers."""
        return {"APB1_DIV": self.apb1_div, "APB2_DIV": self.apb2_div}

    def check(self, require: Require) -> None:
        """The dividers are those that the prescalers have."""
        for name in ("apb1_div", "apb2_div"):
            value = getattr(self, name)
            require(value in (1, 2, 4, 8, 16), f"clock.{name} {value} is none of 1, 2, 4, 8, 16")


@dataclass(frozen=True)
class Stm32V1Uart(Uart, ABC):
    """A USART with SR and DR, on one of two buses (RM0008 section 27, RM0390 section 25).

    Attributes:
        bus: ``"apb1"`` or ``"apb2"``.
        enable_bit: its bit in the bus's clock enable register.
    """

    bus: str
    enable_bit: int

    #: CR1 with UE and RE.
    ready: ClassVar[tuple[int, int] | None] = (0x0C, (1 << 13) | (1 << 2))

    @property
    def tx_pin(self) -> tuple[int, int]:
        """GPIO port (A is 0) and pin number of the transmitter."""
        return pin(self.tx)

    @property
    def rx_pin(self) -> tuple[int, int]:
        """GPIO port (A is 0) and pin number of the receiver."""
        return pin(self.rx)

    @property
    def facts(self) -> dict[str, bool | str]:
        """Pins on one port share code."""
        return {"bus": self.bus, "one_port": self.tx[:2] == self.rx[:2]}

    @abstractmethod
    def enable_address(self) -> int:
        """The register with ``enable_bit``."""

    def macros(self) -> dict[str, int]:
        """Where it is switched on, and its pins."""
        return {
            "UART_ENABLE_ADDRESS": self.enable_address(),
            "UART_ENABLE_BIT": self.enable_bit,
            **pin_macros(self),
        }

    def check(self, require: Require) -> None:
        """Bus, bit and pins."""
        require(self.bus in ("apb1", "apb2"), f"uart.bus {self.bus!r} is neither apb1 nor apb2")
        require(0 <= self.enable_bit < 32, f"uart.enable_bit {self.enable_bit} is no bit of a word")
        for name in (self.tx, self.rx):
            require(is_pin(name), f"uart pin {name!r} must look like 'PA2'")
