"""Messages: packing is undone by unpacking, and nothing malformed gets through."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_rig import INFO

from bnnmcu.errors import LinkError
from bnnmcu.link.fault import FaultReport
from bnnmcu.link.hello import DeviceInfo
from bnnmcu.link.protocol import (
    BaudReply,
    BaudRequest,
    CheckReply,
    CountersReply,
    ErrorCode,
    ErrorReport,
    InferReply,
    InferRequest,
    SampleReply,
    SampleRequest,
)

FAULT = FaultReport((0, 1, 2, 3, 12, 0x08000101, 0x08000200, 1 << 24), 0x400, 1 << 30, 0, 0, 64, 2)
INFER = InferReply(np.array([[1, -(2**63)], [3, 2**63 - 1]]), np.array([5, 2**32 - 1]), True)

UNPACK: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "hello": (INFO.pack(), DeviceInfo.unpack),
    "infer request": (
        InferRequest(b"abc", (0, 2**64 - 1)).pack(),
        lambda data: InferRequest.unpack(data, 3),
    ),
    "infer reply": (
        INFER.pack(8),
        lambda data: InferReply.unpack(data, seeds=2, classes=2, logit_bytes=8),
    ),
    "counters": (
        CountersReply(np.array([1, 2], np.uint32), False).pack(),
        lambda data: CountersReply.unpack(data, layers=2),
    ),
    "sample request": (
        SampleRequest(255, 2**64 - 1, 2**32 - 1, 65535).pack(),
        SampleRequest.unpack,
    ),
    "sample reply": (
        SampleReply(np.array([7, 2**32 - 1], np.uint32)).pack(),
        lambda data: SampleReply.unpack(data, count=2),
    ),
    "check": (CheckReply(2**32 - 1, 1, 152_636).pack(), CheckReply.unpack),
    "error": (ErrorReport(5, 2, 946).pack(), ErrorReport.unpack),
    "fault": (FAULT.pack(), FaultReport.unpack),
}


@pytest.mark.parametrize(("payload", "unpack"), UNPACK.values(), ids=UNPACK.keys())
def test_unpack_undoes_pack(payload: bytes, unpack: Callable[[bytes], Any]) -> None:
    message = unpack(payload)
    assert (message.pack(8) if isinstance(message, InferReply) else message.pack()) == payload


def test_values_survive() -> None:
    assert DeviceInfo.unpack(INFO.pack()) == INFO
    assert FaultReport.unpack(FAULT.pack()) == FAULT
    reply = InferReply.unpack(INFER.pack(8), seeds=2, classes=2, logit_bytes=8)
    assert reply.logits.tolist() == INFER.logits.tolist()
    assert reply.ticks.tolist() == [5, 2**32 - 1]
    assert reply.polluted


def test_names_steer_no_terminal() -> None:
    hostile = replace(INFO, board="a\x1b[2Jb", model="\u202eS64\n")
    found = DeviceInfo.unpack(hostile.pack())
    assert (found.board, found.model) == ("a\ufffd[2Jb", "\ufffdS64\ufffd")


@pytest.mark.parametrize(("payload", "unpack"), UNPACK.values(), ids=UNPACK.keys())
def test_every_other_length_is_refused(payload: bytes, unpack: Callable[[bytes], Any]) -> None:
    for size in range(len(payload)):
        with pytest.raises(LinkError):
            unpack(payload[:size])
    for extra in (b"\0", b"\xff", bytes(8), bytes(1000)):
        with pytest.raises(LinkError):
            unpack(payload + extra)


@pytest.mark.parametrize("kind", [BaudRequest, BaudReply])
def test_bauds_carry_any_pattern(kind: type[BaudRequest] | type[BaudReply]) -> None:
    for pattern in (b"", b"\0", bytes(range(256))):
        assert kind.unpack(kind(2**32 - 1, pattern).pack()) == kind(2**32 - 1, pattern)
    for size in range(4):
        with pytest.raises(LinkError):
            kind.unpack(bytes(size))
    with pytest.raises(LinkError, match="does not fit"):
        kind(1 << 32).pack()


@given(st.sampled_from(sorted(UNPACK)), st.binary(max_size=200))
def test_random_payloads_raise_nothing_else(name: str, payload: bytes) -> None:
    with contextlib.suppress(LinkError):
        UNPACK[name][1](payload)


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=255).map(tuple),
    st.binary(min_size=1, max_size=100),
)
def test_infer_requests_round_trip(seeds: tuple[int, ...], image: bytes) -> None:
    request = InferRequest(image, seeds)
    assert InferRequest.unpack(request.pack(), len(image)) == request


@pytest.mark.parametrize("seeds", [(), (-1,), (2**64,), tuple(range(256))])
def test_impossible_seeds_are_refused(seeds: tuple[int, ...]) -> None:
    with pytest.raises(LinkError):
        InferRequest(b"a", seeds).pack()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"window": 0}, "window"),
        ({"max_seeds": 0}, "window or seed"),
        ({"logit_bytes": 3}, "logits of 3"),
        ({"classes": 0}, "classes"),
        ({"channels": 0}, "input"),
        ({"max_request": 945}, "payload limit"),
        ({"max_reply": 1683}, "payload limit"),
    ],
)
def test_impossible_limits_are_refused(change: dict[str, int], match: str) -> None:
    with pytest.raises(LinkError, match=match):
        DeviceInfo.unpack(replace(INFO, **change).pack())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "seeds", "width"),
    [(INFER.pack(8), 1, 8), (INFER.pack(8), 2, 4), (b"\2\x08\0\0", 2, 8)],
)
def test_replies_to_something_else_are_refused(reply: bytes, seeds: int, width: int) -> None:
    with pytest.raises(LinkError):
        InferReply.unpack(reply, seeds=seeds, classes=2, logit_bytes=width)


@pytest.mark.parametrize(
    ("cfsr", "hfsr", "words"),
    [
        (1 << 10, 1 << 30, ["imprecise bus fault", "pc=0x08000200", "lr=0x08000101"]),
        (1 << 9 | 1 << 15, 1 << 30, ["precise bus fault at address 0x20020000"]),
        (1 << 1 | 1 << 7, 0, ["data access violation at address 0x00000010"]),
        (1 << 16, 0, ["undefined instruction"]),
        (1 << 25, 0, ["division by zero"]),
        (1 << 19, 0, ["FPU not enabled"]),
        (0, 1 << 1, ["vector table read failed"]),
        (0, 0, ["HardFault (a Cortex-M0 does not record why) or NMI (a watchdog?); pc="]),
        (0, 1 << 30, ["unknown cause"]),
    ],
)
def test_faults_are_told_in_words(cfsr: int, hfsr: int, words: list[str]) -> None:
    text = replace(FAULT, cfsr=cfsr, hfsr=hfsr, mmfar=0x10, bfar=0x20020000).text
    assert all(word in text for word in words), text


@pytest.mark.parametrize("stack_free", [0, 64])
@pytest.mark.parametrize("cfsr", [0, 1 << 17])
def test_a_stack_that_left_its_memory(stack_free: int, cfsr: int) -> None:
    """No registers could be saved; what the core read for its return address is no cause."""
    fault = replace(FAULT, registers=(0,) * 8, cfsr=cfsr, stack_free=stack_free)
    assert fault.pc == 0
    assert fault.text.startswith("stack overflow (the stack pointer left its memory); pc=0x0000")
    # With registers, both are told.
    text = replace(FAULT, cfsr=1 << 17, stack_free=0).text
    assert text.startswith("stack overflow, invalid EPSR state")


@pytest.mark.parametrize("code", list(ErrorCode))
def test_errors_are_told_in_words(code: ErrorCode) -> None:
    assert "unknown error code" not in ErrorReport(code, 2, 3).text


def test_an_unknown_error_code_is_shown() -> None:
    assert "unknown error code 99 (detail 3)" in ErrorReport(99, 2, 3).text


@pytest.mark.parametrize(
    ("counter", "generator", "mode", "texts"),
    [
        (1, 1, 0, ("CPU cycles", "xorshift128", "evaluation")),
        (2, 3, 1, ("timer ticks", "taus88", "field")),
        (0, 0, 0, ("no counter", "none", "evaluation")),
        (9, 9, 9, ("unknown (9)", "unknown (9)", "unknown (9)")),
    ],
)
def test_numbers_get_names(counter: int, generator: int, mode: int, texts: tuple[str, ...]) -> None:
    info = replace(INFO, counter=counter, generator=generator, mode=mode)
    assert (info.counter_text, info.generator_text, info.mode_text) == texts
