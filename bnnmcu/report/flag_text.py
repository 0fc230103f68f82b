"""Flags as lines for people: all warnings, and not the same note for every case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from bnnmcu.attack.flags import Flag

__all__ = ["told"]

# Notes of one code; what more there is, is counted.
_SHOWN = 2


def told(flags: Iterable[Flag]) -> Iterator[str]:
    """A line for each flag, warnings first: ``warning: ... [no-eot]``."""
    every = [replace(flag, text=_plain(flag.text)) for flag in flags]
    for flag in every:
        if flag.severity == "warning":
            yield f"warning: {flag.text} [{flag.code}]"
    notes = [flag for flag in every if flag.severity != "warning"]
    for code in dict.fromkeys(flag.code for flag in notes):
        alike = [flag for flag in notes if flag.code == code]
        for flag in alike[:_SHOWN]:
            yield f"note: {flag.text} [{code}]"
        if len(alike) > _SHOWN:
            yield f"note: the same of {len(alike) - _SHOWN} more cases; --json has all [{code}]"


def _plain(text: str) -> str:
    """Without what could steer a terminal: settings come from a file that may be anybody's."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
