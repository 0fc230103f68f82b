"""A plan as C: the generated model, from templates.

The same plan gives the same bytes; nothing here depends on time, paths or
the order of a dictionary built elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources.abc import Traversable
from typing import Any

import jinja2
import numpy as np

from bnnmcu.backend.kernels.base import Constant, Fields
from bnnmcu.backend.plan import Placed, Plan, Step
from bnnmcu.errors import BnnmcuError
from bnnmcu.graphfile import graph_sha256
from bnnmcu.lfsr import GENERATORS
from bnnmcu.resources import templates

__all__ = ["MODEL_FILES", "model_sources", "render", "template_bytes"]

#: The generated files of a model, and the folder each belongs to.
MODEL_FILES = {"bnn_model.h": "include", "bnn_model.c": "src"}
_LINE = 96
# -2147483648 is an expression in C, whose constant does not fit an int.
_LOWEST = {-(2**31): "INT32_MIN", -(2**63): "INT64_MIN"}


def _number(value: int) -> str:
    return _LOWEST.get(value) or str(value)


def _literal(value: int, c_type: str) -> str:
    return f"0x{value:08X}u" if c_type == "uint32_t" else _number(value)


def _table(constant: Constant) -> Iterator[str]:
    """The initialiser of a table, in lines of bounded length."""
    line, c_type = "   ", constant.c_type
    for value in constant.data.tolist():
        word = f" {_literal(value, c_type)},"
        if len(line) + len(word) > _LINE:
            yield line
            line = "   "
        line += word
    yield line


def _title(step: Step) -> str:
    """What a comment says of a step."""
    facts = []
    if step.macs:
        facts.append(f"{step.macs} multiply-accumulates")
    if step.constants:
        shared = " (others are shared)" if any(c.shared for c in step.constants) else ""
        facts.append(f"{step.flash_bytes} bytes of tables{shared}")
    return f"{step.name}: {', '.join(facts)}." if facts else f"{step.name}"


def _fields(fields: Fields, step: Step, indent: str) -> Iterator[str]:
    """The initialiser of a parameter struct."""
    for name, value in fields.items():
        if isinstance(value, int):
            yield f"{indent}.{name} = {_number(value)},"
        elif isinstance(value, str):
            constant = step.constant(value)
            assert constant is not None, f"{step.name} has no table {value}"
            yield f"{indent}.{name} = {constant.symbol},"
        else:
            yield f"{indent}.{name} = {{"
            yield from _fields(value, step, indent + "    ")
            yield f"{indent}}},"


def _words(buffer: Placed) -> str:
    return f"ctx->arena + {buffer.offset}"


def _call(step: Step, layer: str, generator: str) -> str:
    """The call of a step's kernel: parameters, sources, scratch, result, and what a draw needs."""
    arguments = [f"&{layer}" if step.call.struct else str(step.call.count)]
    for source, kind in zip(step.sources, step.reads, strict=True):
        if source is None:
            arguments.append("ctx->image")
        else:
            pixels = kind == "u8"
            arguments.append(f"(const uint8_t *)({_words(source)})" if pixels else _words(source))
    if step.scratch is not None:
        arguments.append(_words(step.scratch))
    arguments.append("logits" if step.logits else _words(step.result))
    if step.planes:
        arguments += ["&ctx->rng", f"bnn_draw_{generator}", str(step.planes)]
    start = f"    {step.kernel}("
    text, width = start + arguments[0], len(start) + len(arguments[0])
    for argument in arguments[1:]:
        if width + len(argument) + 4 > _LINE:
            text += ",\n" + " " * len(start) + argument
            width = len(start) + len(argument)
        else:
            text += f", {argument}"
            width += len(argument) + 2
    return text + ");"


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


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _find(name).read_text(encoding="utf-8")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  C is no HTML; names are validated by the graph
    )
    environment.filters["table"] = lambda constant: "\n".join(_table(constant))
    environment.filters["title"] = _title
    environment.filters["fields"] = lambda step: "\n".join(_fields(step.call.fields, step, "    "))
    environment.filters["call"] = _call
    environment.filters["octets"] = _octets
    return environment


def render(path: str, **variables: Any) -> bytes:
    """A Jinja template of ``firmware_templates``, filled in; a missing variable is an error."""
    return _environment().get_template(path).render(**variables).encode()


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
