"""Small runs for the tests of the store: made by code, the same in every process."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from bnnmcu.store import Example, Store

SHAPE = (4, 3, 2)
DRAWS = 3
CLASSES = 5
CASES = (("clean", 0), ("fgsm", 25))
CHUNK = 10


def identity(images: int) -> dict[str, Any]:
    """Of a campaign with one attack."""
    return {
        "config": {"attacks": [{"attack": "fgsm", "eot_draws": 3}], "draws": DRAWS, "seed": 1},
        "model": {"name": "tiny", "stochastic": True},
        "data": {"name": "toy", "images": images},
        "oracle": {"name": "board", "label": "emulated"},
    }


def _noise(*place: object) -> np.random.Generator:
    digest = hashlib.sha256(repr(place).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def example(case: tuple[str, int], image: int) -> Example:
    """The image that belongs at this place."""
    noise = _noise(case, image)
    pixels = noise.integers(0, 256, SHAPE).astype(np.uint8)
    made = {"attack": case[0], "seed": image} if case[1] else None
    return Example(*case, image, image % CLASSES, pixels, case[1], case[1] / 255, 0.25, made)


def answer(case: tuple[str, int], image: int) -> tuple[Any, Any]:
    """Seeds and logits that belong to it."""
    noise = _noise("answer", case, image)
    seeds = noise.integers(0, 2**64, DRAWS, dtype=np.uint64)
    return seeds, noise.integers(-(2**62), 2**62, (DRAWS, CLASSES))


def go_on(path: Path, images: int) -> Generator[tuple[str, int], None, None]:
    """Do what is missing, as a campaign does; yields after everything that was stored."""
    with Store.open(path, identity(images)) as store:
        for case in CASES:
            there = {image for image, _ in store.examples(*case)}
            for start in range(0, images, CHUNK):
                wanted = range(start, min(start + CHUNK, images))
                if wanted.start not in there:
                    store.add_examples([example(case, image) for image in wanted], seconds=1.0)
                    yield "examples", wanted.stop
            for row, image, _, pixels, _ in store.unanswered(*case, SHAPE):
                assert (pixels == example(case, image).pixels).all()
                seeds, logits = answer(case, image)
                ticks = np.arange(DRAWS, dtype=np.uint32)
                store.add_answer(
                    row, seeds, logits, ticks, False, latency_s=0.01, attempts=2, board="b"
                )
                yield f"{case[0]} answer", image


def finish(path: Path, images: int) -> Path:
    """A whole run."""
    for _ in go_on(path, images):
        pass
    return path


def part(path: Path, images: int, steps: int) -> Path:
    """A run that was stopped after so many steps."""
    running = go_on(path, images)
    for _ in range(steps):
        next(running)
    running.close()
    return path


def altered(whole: Path, path: Path, statement: str) -> Path:
    """A copy of a run, changed by hand."""
    shutil.copy(whole, path)
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(statement)
    return path


def command(path: Path, images: int, *, file_limit: int = 0, paced: bool = False) -> list[str]:
    """Does the same in a process of its own, and prints what was stored.

    Args:
        file_limit: bytes that a file may have; 0 for no limit.
        paced: wait for a line on standard input before every step.
    """
    return [sys.executable, __file__, str(path), str(images), str(file_limit), str(int(paced))]


def environment() -> dict[str, str]:
    """For that process."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def _main(path: str, images: str, file_limit: str, paced: str) -> None:
    if int(file_limit):
        import resource

        # A write beyond it then fails, as on a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_limit), int(file_limit)))
    steps = go_on(Path(path), int(images))
    while not int(paced) or sys.stdin.readline():
        what, number = next(steps, ("over", 0))
        print(what, number, flush=True)
        if what == "over":
            break


if __name__ == "__main__":
    _main(*sys.argv[1:])
