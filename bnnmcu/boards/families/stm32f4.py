"""STM32F4: RM0390 (STM32F446), RM0090 (STM32F405 and others)."""

from __future__ import annotations

from dataclasses import dataclass

from bnnmcu.boards.families.stm32 import BusClock, Stm32V1Uart
from bnnmcu.boards.families.stm32_reset import reset_macros
from bnnmcu.boards.families.stm32_watchdog import iwdg
from bnnmcu.boards.family import Family, Storage
from bnnmcu.boards.model import Require

__all__ = ["FAMILY", "F4Clock", "F4Uart"]

_RCC = 0x40023800


@dataclass(frozen=True)
class _Limits:
    """What a chip's clocks may be, in MHz; without over-drive.

    Attributes:
        overdrive: what over-drive raises all three to; None where there is none.
    """

    cpu: int
    apb1: int
    apb2: int
    overdrive: tuple[int, int, int] | None = None


_OVER = (180, 45, 90)
# "General operating conditions" of the data sheets: DS10086 (F401), DS10314 (F411) and the like;
# DS8626 (F405, F407), DS8597 (F415, F417); DS10693 (F446), DS9405 (F427, F429) and the like.
_LIMITS = {
    "STM32F401": _Limits(84, 42, 84),
    **dict.fromkeys(
        ("STM32F410", "STM32F411", "STM32F412", "STM32F413", "STM32F423"), _Limits(100, 50, 100)
    ),
    **dict.fromkeys(("STM32F405", "STM32F407", "STM32F415", "STM32F417"), _Limits(168, 42, 84)),
    **dict.fromkeys(
        ("STM32F427", "STM32F429", "STM32F437", "STM32F439", "STM32F446", "STM32F469", "STM32F479"),
        _Limits(168, 42, 84, _OVER),
    ),
}


@dataclass(frozen=True)
class F4Clock(BusClock):
    """``hz`` = ``reset_hz`` / ``pll_m`` * ``pll_n`` / ``pll_p``, from the internal oscillator."""

    pll_m: int
    pll_n: int
    pll_p: int
    pll_q: int
    wait_states: int
    voltage_scale: int
    voltage_scale_bits: int
    overdrive: bool

    @property
    def facts(self) -> dict[str, bool | str]:
        """Over-drive takes code."""
        return {"overdrive": self.overdrive}

    def macros(self) -> dict[str, int]:
        """Clock tree: HSI / PLL_M * PLL_N / PLL_P."""
        return {
            "PLL_M": self.pll_m,
            "PLL_N": self.pll_n,
            "PLL_P": self.pll_p,
            "PLL_Q": self.pll_q,
            **super().macros(),
            "WAIT_STATES": self.wait_states,
            "VOLTAGE_SCALE": self.voltage_scale,
            "VOLTAGE_SCALE_BITS": self.voltage_scale_bits,
            "OVERDRIVE": int(self.overdrive),
        }

    def check(self, require: Require) -> None:
        """The limits of the PLL: RM0390 section 6.3.2, RM0090 section 7.3.2."""
        for name, low, high in (
            ("pll_m", 2, 63),
            ("pll_n", 50, 432),
            ("pll_q", 2, 15),
            ("wait_states", 0, 15),
            ("voltage_scale_bits", 1, 2),
        ):
            value = getattr(self, name)
            require(low <= value <= high, f"clock.{name} {value} is not within {low} to {high}")
        require(self.pll_p in (2, 4, 6, 8), f"clock.pll_p {self.pll_p} is none of 2, 4, 6, 8")
        super().check(require)
        require(
            0 < self.voltage_scale < 1 << self.voltage_scale_bits,
            f"clock.voltage_scale {self.voltage_scale} is not within its bits",
        )
        require(self.reset_hz == 16_000_000, "clock.reset_hz must be the HSI's 16000000")
        before = self.reset_hz / self.pll_m
        vco = before * self.pll_n
        require(
            1e6 <= before <= 2e6, f"the VCO input of {before / 1e6:g} MHz is not within 1 to 2 MHz"
        )
        require(100e6 <= vco <= 432e6, f"the VCO's {vco / 1e6:g} MHz are not within 100 to 432 MHz")
        require(
            vco / self.pll_p == self.hz,
            f"clock.hz is {self.hz}, but the PLL factors give {vco / self.pll_p:.0f}",
        )
        require(
            vco / self.pll_q <= 48e6,
            f"clock.pll_q {self.pll_q} gives {vco / self.pll_q / 1e6:g} MHz; 48 are the most",
        )
        # At 2.7 to 3.6 V a wait state for each further 30 MHz is enough on all of them (RM0390
        # table 5, RM0090 table 10); some need fewer, and one too many is only slower.
        least = -(-self.hz // 30_000_000) - 1
        require(
            self.wait_states >= least,
            f"clock.wait_states {self.wait_states} is too few for {self.hz / 1e6:g} MHz: {least}",
        )

    def check_chip(self, chip: str, require: Require) -> None:
        """How fast the CPU and both buses may be."""
        limits = _LIMITS.get(chip[:9])
        require(
            limits is not None,
            f"no limits of the clocks are known for the chip {chip!r}; known: {', '.join(_LIMITS)}",
        )
        assert limits is not None
        require(
            not self.overdrive or limits.overdrive is not None,
            f"clock.overdrive must be false: the {chip} has none",
        )
        require(
            not self.overdrive or self.hz > limits.cpu * 1_000_000,
            f"clock.overdrive must be false: it is for more than {limits.cpu} MHz",
        )
        most = limits.overdrive if self.overdrive else None
        cpu, *buses = most or (limits.cpu, limits.apb1, limits.apb2)
        how = f" {'with' if self.overdrive else 'without'} over-drive" if limits.overdrive else ""
        require(
            self.hz <= cpu * 1_000_000,
            f"clock.hz is {self.hz / 1e6:g} MHz; the {chip} takes {cpu}{how}",
        )
        for bus, limit in zip(("apb1", "apb2"), buses, strict=True):
            hz = self.bus_hz(bus)
            require(
                hz <= limit * 1_000_000,
                f"clock.{bus}_div gives {hz / 1e6:g} MHz; {bus} takes {limit}{how}",
            )


@dataclass(frozen=True)
class F4Uart(Stm32V1Uart):
    """Its pins are given to it by number.

    Attributes:
        alternate: the alternate function of both pins.
    """

    alternate: int

    def enable_address(self) -> int:
        """RCC_APB1ENR or RCC_APB2ENR: RM0390 section 6.3.13, 6.3.14."""
        return _RCC + (0x40 if self.bus == "apb1" else 0x44)

    def macros(self) -> dict[str, int]:
        """The alternate function too."""
        return {**super().macros(), "UART_ALTERNATE": self.alternate}

    def check(self, require: Require) -> None:
        """The alternate function too."""
        super().check(require)
        require(0 <= self.alternate < 16, f"uart.alternate {self.alternate} is not within 0 to 15")


FAMILY = Family(
    name="stm32f4",
    cores=("cortex-m4f",),
    clock=F4Clock,
    uart=F4Uart,
    sources=("bnn_counter_stm32.c", "bnn_pins_stm32.c", "bnn_uart_stm32v1.c"),
    clock_source="bnn_clock_stm32f4.c",
    macros={
        "CLOCK_PROBE_ADDRESS": _RCC,  # RCC_CR: HSION, HSEON or both
        "CLOCK_PROBE_MASK": (1 << 0) | (1 << 16),
        "GPIO_ADDRESS": 0x40020000,
        "GPIO_ENABLE_ADDRESS": _RCC + 0x30,
        "GPIO_ENABLE_SHIFT": 0,
        "TIMER_ADDRESS": 0x40000000,
        "TIMER_ENABLE_ADDRESS": _RCC + 0x40,
        "TIMER_ENABLE_BIT": 0,
        **reset_macros(_RCC + 0x74, power=(25, 27), clear=24),
    },
    unicorn=True,
    watchdog=iwdg(),
    # Where there are 256 KB or more, the last sector has 128 KB: RM0390 and RM0090, section 3,
    # "Flash module organization".  A mark is a bit.
    storage=Storage("bnn_persist_stm32f4.c", 0x40023C00, 128 << 10, 256 << 10, 1 << 20),
)
