"""A plan as C: the generated model, from templates.

The same plan gives the same bytes; nothing here depends on time, paths or
the order of a dictionary built elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources.abc import Traversable
from typing import Any

import jinja2
import numpy as np

from bnnmcu.backend.plan import Constant, Plan
from bnnmcu.errors import BnnmcuError
from bnnmcu.graphfile import graph_sha256
from bnnmcu.lfsr import GENERATORS
from bnnmcu.resources import templates

__all__ = ["MODEL_FILES", "model_sources", "render", "template_bytes"]

#: The generated files of a model, and the folder each belongs to.
MODEL_FILES = {"bnn_model.h": "include", "bnn_model.c": "src"}
_LINE = 96


def _literal(value: int, c_type: str) -> str:
    if c_type == "uint32_t":
        return f"0x{value:08X}u"
    # -2147483648 is an expression in C, whose constant does not fit an int.
    return "INT32_MIN" if value == -(2**31) else str(value)


def _table(constant: Constant) -> Iterator[str]:
    """The initialiser of a table, in lines of bounded length."""
    line = "   "
    for value in constant.data.tolist():
        word = f" {_literal(value, constant.c_type)},"
        if len(line) + len(word) > _LINE:
            yield line
            line = "   "
        line += word
    yield line


def _octets(data: bytes) -> str:
    return ", ".join(f"0x{octet:02X}" for octet in data)


def _find(path: str) -> Traversable:
    found = templates().joinpath(*path.split("/"))
    if not found.is_file():
        raise BnnmcuError(
            "a template is missing from this installation",
            where=path,
            hint="install it again: pip install --force-reinstall bnnmcu",
        )
    return found


def template_bytes(path: str) -> bytes:
    """A file of ``firmware_templates`` as it is."""
    return _find(path).read_bytes()


def render(path: str, **variables: Any) -> bytes:
    """A Jinja template of ``firmware_templates``, filled in; a missing variable is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _find(name).read_text(encoding="utf-8")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  C is no HTML; names are validated by the graph
    )
    environment.filters["table"] = lambda constant: "\n".join(_table(constant))
    environment.filters["octets"] = _octets
    return environment.get_template(path).render(**variables).encode()


def model_sources(plan: Plan) -> dict[str, bytes]:
    """The generated model: ``bnn_model.h`` and ``bnn_model.c``."""
    graph = plan.graph
    code = GENERATORS[graph.generator].code if plan.planes else 0
    input_size: int = int(np.prod(graph.input_shape))
    variables = {
        "plan": plan,
        "graph": graph,
        "sha256": graph_sha256(graph),
        "generator_code": code,
        "input_bytes": input_size,
    }
    return {name: render(f"project/{name}.j2", **variables) for name in MODEL_FILES}
