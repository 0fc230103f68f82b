"""Several searches written one question at a time, whose questions are asked together.

A library's attack calls a function and waits for its answer, so it asks about
one image at a time; a board answers many images faster than one after the
other.  Here every search has a thread, but only one thread runs at any moment:
it runs until it asks, and when all have asked, their questions are answered in
one call.  The order is fixed, and numpy's global generator, from which such
libraries draw, has a state of its own in every search.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["in_lockstep"]

#: Asks a question, and gives its answer.
Ask = Callable[[Any], Any]

# numpy's global generator is one for all threads, those of another campaign included.
_GENERATOR = threading.Lock()


class _StoppedError(BaseException):
    """Ends a search whose answer will never come; no library may catch it."""


class _Search(threading.Thread):
    def __init__(self, body: Callable[[Ask], object], seed: int) -> None:
        super().__init__(daemon=True)
        self._body = body
        self._random = np.random.RandomState(seed).get_state()
        self._turn = threading.Semaphore(0)
        self._yielded = threading.Semaphore(0)
        self._stopped = False
        self._answer: Any = None
        self.question: Any = None
        self.finished = False
        self.error: BaseException | None = None

    def run(self) -> None:
        """The body, from its first turn on."""
        try:
            self._wait()
            self._body(self._ask)
        except _StoppedError:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.finished = True
            self._yielded.release()

    def _wait(self) -> None:
        self._turn.acquire()
        if self._stopped:
            raise _StoppedError

    def _ask(self, question: Any) -> Any:
        self.question = question
        self._yielded.release()
        self._wait()
        return self._answer

    def give_turn(self, answer: Any = None) -> None:
        """Let the search run up to its next question, or to its end, whose error is raised."""
        self._answer = answer
        with _GENERATOR:
            before = np.random.get_state()
            np.random.set_state(self._random)
            try:
                self._turn.release()
                self._yielded.acquire()
            finally:
                self._random = np.random.get_state()
                np.random.set_state(before)
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """End a search, wherever it stands."""
        self._stopped = True
        self._turn.release()
        self.join()


def in_lockstep(
    bodies: Sequence[Callable[[Ask], object]],
    answer: Callable[[Sequence[tuple[int, Any]]], Sequence[Any]],
    seeds: Sequence[int],
) -> None:
    """Run all searches to their ends.

    Args:
        bodies: each is given a function that asks.
        answer: answers questions, given with the number of their search, in order.
        seeds: of numpy's global generator within each search, 0 .. 2**32 - 1;
            outside of them, ``answer`` included, its state stays what it is.

    Raises:
        whatever a search or ``answer`` raises; the other searches are ended.
    """
    searches = [_Search(body, seed) for body, seed in zip(bodies, seeds, strict=True)]
    try:
        for search in searches:
            search.start()
            search.give_turn()
        while True:
            waiting = [(i, search) for i, search in enumerate(searches) if not search.finished]
            if not waiting:
                return
            answers = answer([(i, search.question) for i, search in waiting])
            for (_, search), given in zip(waiting, answers, strict=True):
                search.give_turn(given)
    finally:
        for search in searches:
            if search.is_alive():
                search.stop()
