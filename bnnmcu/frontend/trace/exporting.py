"""torch.export, and what its failures mean to a user."""

from __future__ import annotations

import copy
import inspect
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from bnnmcu.errors import BnnmcuError, UnsupportedModelError, UsageError

__all__ = ["Exported", "export", "quiet", "run_once", "working_copy"]

Exported = Any
_DATA_HINT = (
    "binarise without touching .data: keep real weights in self.weight and write "
    "w = self.weight + (torch.sign(self.weight) - self.weight).detach(), x = x + "
    "(torch.sign(x) - x).detach(), then F.conv2d(x, w) or F.linear(x, w, self.bias)"
)


class _DataEditedError(Exception):
    """Something was assigned to ``tensor.data``."""


class _DataReads(TorchFunctionMode):
    """Reading ``.data`` is a detach; torch.export cannot follow it otherwise."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # These are made anew at each access, so that only == knows them.
        if func == torch.Tensor.data.__get__:  # type: ignore[attr-defined]
            return args[0].detach()
        if func == torch.Tensor.data.__set__:  # type: ignore[attr-defined]
            raise _DataEditedError
        return func(*args, **(kwargs or {}))


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings of torch's own; the generators' states are put back at the end."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield


def working_copy(module: nn.Module) -> nn.Module:
    """A copy in eval mode; nothing that is done to it reaches the user's module.

    Raises:
        UnsupportedModelError: it cannot be copied.
    """
    # Generators, and tensors that were computed (pruned weights), refuse to be copied.
    memo: dict[int, Any] = {}
    for child in module.modules():
        for held in vars(child).values():
            if isinstance(held, torch.Generator):
                memo[id(held)] = held.clone_state()
            elif isinstance(held, torch.Tensor) and not held.is_leaf:
                memo[id(held)] = held.detach().clone()
    try:
        twin = copy.deepcopy(module, memo)
    except Exception as error:
        raise UnsupportedModelError(
            f"cannot be copied: {type(error).__name__}: {_first_line(error)}",
            where=type(module).__name__,
            hint="keep only parameters, buffers and plain values as attributes of the module",
        ) from error
    twin.eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    return twin


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "no message"


def _edits_data(module: nn.Module) -> str | None:
    """Path of a module whose forward assigns to ``.data``."""
    for path, child in module.named_modules():
        try:
            source = inspect.getsource(type(child).forward)
        except (OSError, TypeError):
            continue
        if re.search(r"\.data\s*=[^=]|\.data\.\w+_\(", source):
            return path or type(child).__name__
    return None


def _data_error(module: nn.Module, where: str | None, what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        what, where=where or _edits_data(module) or type(module).__name__, hint=_DATA_HINT
    )


def _users_line(error: BaseException) -> str | None:
    """The line of the user's code, outside torch, that an error came from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__)
              if "/torch/" not in f.filename.replace("\\", "/") and __package__ not in f.filename
              and "bnnmcu/frontend" not in f.filename.replace("\\", "/")]  # fmt: skip
    frame = next((f for f in reversed(frames) if f.line), None)
    if frame is None:
        return None
    return f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} ({frame.line})"


def run_once(module: nn.Module, example: torch.Tensor) -> torch.Tensor:
    """What the module answers.

    Raises:
        UsageError: its own code fails.
        UnsupportedModelError: its forward edits parameters, or returns no tensor.
    """
    before = {name: value.clone() for name, value in module.named_parameters()}
    given = example.clone()
    try:
        with torch.no_grad():
            answer = module(given)
    except BnnmcuError:
        raise
    except Exception as error:
        raise UsageError(
            f"its forward raises {type(error).__name__}: {_first_line(error)}",
            where=_users_line(error) or type(module).__name__,
            hint=f"module(example_input) must work for an input of shape {tuple(example.shape)}",
        ) from error
    for name, value in module.named_parameters():
        if name not in before or not torch.equal(value, before[name]):
            raise _data_error(module, name, "is changed by forward, as BinaryNet's code does")
    if not torch.equal(given, example):
        raise UnsupportedModelError(
            "forward changes its own input",
            where=type(module).__name__,
            hint="write x = f(x) instead of an operation in place on the input",
        )
    if not isinstance(answer, torch.Tensor):
        raise UnsupportedModelError(
            f"returns a {type(answer).__name__}, not one tensor",
            where=type(module).__name__,
            hint="wrap it in a module whose forward returns the logits alone",
        )
    return answer


def export(module: nn.Module, example: torch.Tensor) -> Exported:
    """torch's graph of a module, without operations in place.

    Raises:
        UnsupportedModelError: torch cannot follow it.
    """
    try:
        with torch.no_grad(), _DataReads():
            program = torch.export.export(module, (example,), strict=False)
        return program.run_decompositions({})
    except _DataEditedError as error:
        raise _data_error(
            module, None, "forward assigns to .data, as BinaryNet's code does: it cannot be traced"
        ) from error
    except BnnmcuError:
        raise
    except Exception as error:
        raise _explained(module, error) from error


def _explained(module: nn.Module, error: Exception) -> BnnmcuError:
    text = str(error)
    where = _users_line(error) or type(module).__name__
    if "fake tensor in the exported program" in text:
        found = re.search(r"model attribute: (?:([\w.]+)\.)?lifted_tensor", text)
        return _data_error(
            module,
            (found.group(1) if found else None),
            "forward edits tensors behind torch's back (.data or .org): it cannot be traced",
        )
    if "data-dependent" in text or "DataDependent" in type(error).__name__:
        line = re.search(r'File "([^"]+)", line (\d+), in \w+\n\s*(.+)', text)
        if line:
            where = f"{line.group(1).rsplit('/', 1)[-1]}:{line.group(2)} ({line.group(3).strip()})"
        return UnsupportedModelError(
            "forward decides by the values of an activation",
            where=where,
            hint="compute both sides and choose with torch.where, or leave the branch out",
        )
    return UnsupportedModelError(
        f"torch.export cannot follow it: {type(error).__name__}: {_first_line(error)}",
        where=where,
        hint="write forward with torch operations on tensors alone, of fixed shapes",
    )
