"""Names of operations, as the user knows the layers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

__all__ = ["final_names", "label_of", "module_path", "network_name"]

_LONGEST = 180
#: What a module is mainly for: it is called by its path alone.
_MAIN = ("conv", "linear", "norm", "prelu")


def module_path(node: Any) -> str:
    """Qualified name of the module whose forward made a graph node; "" for the root."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    # A second call of one module is "name@1".
    return re.sub(r"@\d+", "", str(stack[-1][0])) if stack else ""


def network_name(name: str) -> str:
    """A name that a network may have, from any text."""
    return re.sub(r"[^A-Za-z0-9_.+*-]", "_", name)[:31] or "network"


_LABELS = {
    "_to_copy": "to",
    "_unsafe_view": "view",
    "native_dropout": "dropout",
    "_native_batch_norm_legit_no_training": "norm",
}


def label_of(node: Any) -> str:
    """What a node does, in a word: conv2d, relu, add."""
    name = str(getattr(node.target, "_opname", "") or getattr(node.target, "__name__", node.target))
    return _LABELS.get(name, name.strip("_"))


def final_names(wanted: Iterable[tuple[str, str, str]], leaves: set[str],
                taken: Iterable[str]) -> dict[str, str]:  # fmt: skip
    """Provisional name to final name.

    Args:
        wanted: (provisional name, module path, what it does), in order.
        leaves: paths of modules without children: an operation that is the only
            one of such a module, or its main one, is called by the path alone.
        taken: names that are not free.
    """
    wanted = list(wanted)
    labels: dict[str, set[str]] = defaultdict(set)
    for _, path, label in wanted:
        labels[path].add(label)
    names: dict[str, str] = {}
    used = set(taken)
    for provisional, path, label in wanted:
        # A module that is called twice does the same twice, so that labels are a set.
        main = [m for m in _MAIN if m in labels[path]][:1] == [label]
        whole = path in leaves and path and (main or len(labels[path]) == 1)
        base = path if whole else f"{path}.{label}".lstrip(".")
        base = re.sub(r"[^A-Za-z0-9_.:-]", "_", base)[:_LONGEST]
        base = base if re.match(r"[A-Za-z0-9_]", base) else f"_{base}"
        name, times = base, 1
        while name in used:
            times += 1
            name = f"{base}:{times}"
        used.add(name)
        names[provisional] = name
    return names
