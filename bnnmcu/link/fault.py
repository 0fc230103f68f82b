"""The FAULT frame: the registers of a core that has crashed, put into words.

Register bits are those of the ARMv7-M Architecture Reference Manual (DDI 0403),
B3.2.15 (CFSR) to B3.2.18 (BFAR).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bnnmcu.errors import LinkError

__all__ = ["FaultReport"]

_FAULT = struct.Struct("<13IB3x")

_CFSR_BITS = {
    0: "instruction access violation",
    1: "data access violation",
    3: "memory fault while leaving an exception",
    4: "memory fault while entering an exception",
    5: "memory fault while saving FPU state",
    8: "instruction fetch bus fault",
    9: "precise bus fault",
    10: "imprecise bus fault",
    11: "bus fault while leaving an exception",
    12: "bus fault while entering an exception (stack overflow?)",
    13: "bus fault while saving FPU state",
    16: "undefined instruction",
    17: "invalid EPSR state (a jump to an even address?)",
    18: "invalid exception return",
    19: "no coprocessor (FPU not enabled?)",
    24: "unaligned access",
    25: "division by zero",
}
_EPSR = 17
_MMFAR_VALID, _BFAR_VALID = 7, 15
_HFSR_BITS = {1: "vector table read failed", 31: "debug event without a debugger"}


@dataclass(frozen=True)
class FaultReport:
    """The payload of a FAULT frame.

    Attributes:
        registers: r0, r1, r2, r3, r12, lr, pc, xpsr at the fault; all zero if
            the stack pointer was unusable.
        cfsr, hfsr, mmfar, bfar: the fault registers of the core.
        stack_free: bytes of stack never used; near zero means that it ran over.
        request: type of the request that was being answered, or 0.
    """

    registers: tuple[int, ...]
    cfsr: int
    hfsr: int
    mmfar: int
    bfar: int
    stack_free: int
    request: int

    @property
    def pc(self) -> int:
        """Address of the instruction that faulted; 0 if it is not known."""
        return self.registers[6]

    @property
    def text(self) -> str:
        """Causes, addresses and registers in one line."""
        causes = []
        cfsr = self.cfsr
        if not any(self.registers):
            causes = ["stack overflow (the stack pointer left its memory)"]
            # A return address read from nowhere is 0: that is what follows, and no cause.
            cfsr &= ~(1 << _EPSR)
        elif self.stack_free == 0:
            causes = ["stack overflow"]
        causes += [text for bit, text in _CFSR_BITS.items() if cfsr >> bit & 1]
        causes += [text for bit, text in _HFSR_BITS.items() if self.hfsr >> bit & 1]
        if not causes and self.cfsr == 0 and self.hfsr == 0:
            # Other cores record it; an NMI, such as a watchdog's, comes here too on all.
            causes = ["HardFault (a Cortex-M0 does not record why) or NMI (a watchdog?)"]
        text = ", ".join(causes) or "unknown cause"
        if self.cfsr >> _MMFAR_VALID & 1:
            text += f" at address 0x{self.mmfar:08x}"
        elif self.cfsr >> _BFAR_VALID & 1:
            text += f" at address 0x{self.bfar:08x}"
        names = ("r0", "r1", "r2", "r3", "r12", "lr", "pc", "xpsr")
        values = dict(zip(names, self.registers, strict=True))
        shown = ("pc", "lr", "r0", "r1", "r2", "r3", "r12", "xpsr")
        text += "; " + " ".join(f"{name}=0x{values[name]:08x}" for name in shown)
        return f"{text} cfsr=0x{self.cfsr:08x} hfsr=0x{self.hfsr:08x} stack_free={self.stack_free}"

    def pack(self) -> bytes:
        """The payload."""
        return _FAULT.pack(
            *self.registers,
            self.cfsr,
            self.hfsr,
            self.mmfar,
            self.bfar,
            self.stack_free,
            self.request,
        )

    @classmethod
    def unpack(cls, payload: bytes) -> FaultReport:
        """Read the payload of a FAULT frame.

        Raises:
            LinkError: its length is wrong.
        """
        if len(payload) != _FAULT.size:
            raise LinkError(f"the device sent a FAULT frame of {len(payload)} bytes")
        fields = _FAULT.unpack(payload)
        return cls(fields[:8], *fields[8:])
