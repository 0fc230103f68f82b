"""The log of a link: what it says, and that a file that fails never costs the run."""

from __future__ import annotations

import errno
import io
import re

import pytest
from link_rig import QUICK, ServerTransport, digits, fake_logits

from bnnmcu.link.device import Device
from bnnmcu.link.trace import TraceFile

IMAGES = digits(20)
_LINES = 2 * (len(IMAGES) + 1)  # a request and a reply each, HELLO's too


class Disk(io.RawIOBase):
    """A file on a disk with room for so many bytes."""

    def __init__(self, room: int) -> None:
        self.content = b""
        self._room = room

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        taken = bytes(data)[: self._room - len(self.content)]
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.content += taken
        return len(taken)


@pytest.mark.parametrize(
    ("room", "buffered", "noticed"),
    [
        (1_000_000, 8192, "never"),
        (0, 8192, "at the end"),  # so short a log is first written when it is closed
        (500, 8192, "at the end"),
        (0, 64, "on the way"),
        (500, 64, "on the way"),
    ],
)
def test_a_full_disk_ends_the_log_and_not_the_run(
    server: ServerTransport, room: int, buffered: int, noticed: str
) -> None:
    told: list[str] = []
    disk = Disk(room)
    trace = TraceFile(io.BufferedWriter(disk, buffered), "run.log", told.append)
    if buffered < 8192:
        trace.reconfigure(write_through=True)
    with trace, Device(server, trace=trace, timing=QUICK) as device:
        results = list(device.infer_many((image, [7]) for image in IMAGES))
        on_the_way = len(told)
    trace.close()  # once more does no harm
    assert trace.closed
    assert [one.logits[0, :-1].tolist() for one in results] == [
        fake_logits(image, 7) for image in IMAGES
    ]
    lines = disk.content.decode().splitlines()
    if noticed == "never":
        assert told == []
        assert len(lines) == _LINES
        assert all(re.match(r" *\d+\.\d{4} [<>] (HELLO|INFER) seq=\d+ size=\d+", x) for x in lines)
        return
    assert on_the_way == (noticed == "on the way")
    (warning,) = told
    assert warning.startswith("warning: run.log: No space left on device: ")
    assert len(disk.content) == room
