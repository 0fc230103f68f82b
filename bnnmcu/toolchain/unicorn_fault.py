"""What an ARMv7-M core does when an instruction cannot be executed, for unicorn, which does not.

Source: ARMv7-M architecture reference manual (DDI 0403E) B1.5.6 exception entry,
B3.2.15 CFSR.
"""

from __future__ import annotations

import struct
from typing import Any

__all__ = ["enter_hard_fault"]

_CFSR, _HFSR, _BFAR = 0xE000_ED28, 0xE000_ED2C, 0xE000_ED38
_HARD_FAULT = 3
_EXC_RETURN_THREAD = 0xFFFF_FFF9
_HFSR_FORCED = 1 << 30
_STKERR = 1 << 12
_PRECISE = (1 << 9) | (1 << 15)  # PRECISERR, BFARVALID
_IBUSERR = 1 << 8
_UNDEFINSTR = 1 << 16


def enter_hard_fault(
    uc: Any, registers: dict[int, int], table: int, bad_access: tuple[int, int] | None
) -> None:
    """Stack the registers, set the status, and go on in the handler.

    Args:
        uc: the CPU, at the instruction that failed.
        registers: of the system, by address; the fault status goes there.
        table: address of the vector table.
        bad_access: unicorn's kind and the address of the access that failed, if one did.
    """
    import unicorn as untyped
    from unicorn import arm_const as arm

    unicorn: Any = untyped
    status = _UNDEFINSTR
    if bad_access is not None:
        access, address = bad_access
        fetch = access in (unicorn.UC_MEM_FETCH_UNMAPPED, unicorn.UC_MEM_FETCH_PROT)
        status = _IBUSERR if fetch else _PRECISE
        if not fetch:
            registers[_BFAR] = address
    names = ("R0", "R1", "R2", "R3", "R12", "LR")
    frame = [uc.reg_read(getattr(arm, f"UC_ARM_REG_{name}")) for name in names]
    pc = uc.reg_read(arm.UC_ARM_REG_PC) & ~1
    frame += [pc, uc.reg_read(arm.UC_ARM_REG_XPSR) | (1 << 24)]
    stack = (uc.reg_read(arm.UC_ARM_REG_SP) - 32) & ~7 & 0xFFFF_FFFF
    try:
        uc.mem_write(stack, struct.pack("<8I", *frame))
    except unicorn.UcError:
        status |= _STKERR
    registers[_CFSR] = status
    registers[_HFSR] = _HFSR_FORCED
    handler = struct.unpack("<I", bytes(uc.mem_read(table + 4 * _HARD_FAULT, 4)))[0]
    uc.reg_write(arm.UC_ARM_REG_SP, stack)
    uc.reg_write(arm.UC_ARM_REG_LR, _EXC_RETURN_THREAD)
    uc.reg_write(arm.UC_ARM_REG_PC, handler | 1)
