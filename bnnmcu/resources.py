"""Where the C templates and the board files are, in a wheel and in a checkout.

A wheel carries the top-level folders ``firmware_templates`` and ``boards``
under ``bnnmcu/_resources``; a checkout has them beside the package.  Both are
read through :mod:`importlib.resources`, so that a zipped package works too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path

from bnnmcu.errors import BnnmcuError

__all__ = ["boards_dir", "model_path", "templates"]


def templates() -> Traversable:
    """The folder with ``runtime/``, ``port/``, ``app/``, ``project/`` and ``library/``.

    Raises:
        BnnmcuError: the installation is incomplete.
    """
    return _folder("firmware_templates")


def boards_dir() -> Traversable:
    """The folder with one ``NAME.toml`` for each board.

    Raises:
        BnnmcuError: the installation is incomplete.
    """
    return _folder("boards")


def model_path(name: str) -> AbstractContextManager[Path]:
    """A shipped model as a file, for as long as the context lasts.

    Raises:
        BnnmcuError: the installation is incomplete.
    """
    installed = files("bnnmcu").joinpath("_resources", "models", name)
    if installed.is_file():
        return as_file(installed)
    checkout = Path(__file__).resolve().parent.parent / "examples" / "models" / name
    if checkout.is_file():
        return as_file(checkout)
    raise BnnmcuError(
        f"this installation of bnnmcu has no model {name!r}",
        hint="install it again: pip install --force-reinstall bnnmcu",
    )


def _folder(name: str) -> Traversable:
    package = files("bnnmcu")
    installed = package.joinpath("_resources", name)
    if installed.is_dir():
        return installed
    # The package's own parent, never the working directory: somebody else's
    # folder named "boards" must not be taken for ours.
    checkout = Path(__file__).resolve().parent.parent / name
    if checkout.is_dir():
        return checkout
    raise BnnmcuError(
        f"this installation of bnnmcu has no {name!r} folder",
        where=str(package),
        hint="install it again: pip install --force-reinstall bnnmcu",
    )
