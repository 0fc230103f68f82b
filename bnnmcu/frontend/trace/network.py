"""A live torch module as a float network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnnmcu.errors import GraphError, UnsupportedModelError
from bnnmcu.frontend.trace import elementwise, layers, pools, shapes  # noqa: F401 (they register)
from bnnmcu.frontend.trace.builder import Builder
from bnnmcu.frontend.trace.check import Checked, verify
from bnnmcu.frontend.trace.entry import Entry, constants, find_entry
from bnnmcu.frontend.trace.exporting import export, quiet, run_once, working_copy
from bnnmcu.frontend.trace.forms import Algebra
from bnnmcu.frontend.trace.inputs import check_example, check_module, pixel_map
from bnnmcu.frontend.trace.naming import network_name
from bnnmcu.frontend.trace.tracer import Tracer
from bnnmcu.frontend.trace.values import Value
from bnnmcu.network.model import Network
from bnnmcu.network.ops import INPUT

__all__ = ["Trace", "trace_module"]


@dataclass(frozen=True)
class Trace:
    """A network and what was noticed on the way.

    Attributes:
        notes: (where, what) of everything that was left out.
    """

    network: Network
    notes: tuple[tuple[str, str], ...]


def _walk(program: Any, tracer: Tracer, entry: Entry, title: str) -> Any:
    """Find out what all nodes are; returns the node of the module's answer.

    Raises:
        UnsupportedModelError: something cannot be expressed, or there are several answers.
    """
    form = tracer.algebra.atom(entry.layout, "op", (INPUT,), op=INPUT)
    tracer.values[entry.node] = Value(form, entry.shape, entry.node)
    for node in program.graph.nodes:
        if node.op == "call_function" and node not in entry.moves:
            tracer.run(node)
    returned = next(n for n in program.graph.nodes if n.op == "output").args[0]
    specs = program.graph_signature.output_specs
    names = {spec.arg.name for spec in specs if spec.kind.name == "USER_OUTPUT"}
    changed = [spec.target for spec in specs if spec.kind.name == "BUFFER_MUTATION"]
    if changed:
        raise UnsupportedModelError(
            "is changed by forward in eval mode, so that answers depend on earlier inputs",
            where=changed[0],
            hint="change buffers only where self.training is true",
        )
    answers = [node for node in returned if getattr(node, "name", None) in names]
    if len(answers) != 1:
        raise UnsupportedModelError(
            "its output does not depend on the input",
            where=title,
            hint="return the logits of the last layer",
        )
    return answers[0]


def _logits(tracer: Tracer, node: Any) -> tuple[Value, tuple[tuple[str, str], ...]]:
    """The logits, without a final softmax or argmax, and what was left out."""
    value = tracer.values.get(node)
    where = tracer.builder.where(node)
    notes = []
    while isinstance(value, Value) and value.inner is not None:
        notes.append((where, value.note))
        value = value.inner
    if not isinstance(value, Value):
        raise UnsupportedModelError(
            "its output does not depend on the input",
            where=where,
            hint="return the logits of the last layer",
        )
    tracer.builder.refuse(value.form.refusal)
    if value.order is not None:
        raise UnsupportedModelError(
            "the output is a flattened permutation of an activation",
            where=tracer.builder.where(value.node),
            hint="end with a linear layer or global pooling",
        )
    if value.layout[1:] != (1, 1):
        raise UnsupportedModelError(
            f"the output has shape {value.shape}, not one number for each class",
            where=tracer.builder.where(value.node),
            hint="flatten or pool before the classifier",
        )
    return value, tuple(notes)


def trace_module(module: Any, example_input: Any, *, name: str | None = None,
                 mean: Any = 0.0, std: Any = 1.0) -> Trace:  # fmt: skip
    """As :func:`bnnmcu.frontend.trace.trace`, with notes."""
    example = check_example(example_input)
    given = check_module(module, example)
    title = type(given).__name__
    with quiet():
        twin = working_copy(given)
        run_once(twin, example)
        program = export(twin, example)
        known, user = constants(program)
        entry = find_entry(user)
        pixels = pixel_map(entry.layout[0], mean, std)
        leaves = {path for path, child in twin.named_modules() if not list(child.children())}
        tracer = Tracer(Builder(Algebra(), leaves), known)
        answer = _walk(program, tracer, entry, title)
        logits, notes = _logits(tracer, answer)
        last = tracer.name(logits)
        if last == INPUT:
            raise UnsupportedModelError(
                "returns its input", where=title, hint="add layers between input and output"
            )
        ops, names = tracer.builder.finish(last)
        try:
            network = Network(network_name(name or title), entry.layout, ops, *pixels)
        except GraphError as error:
            raise UnsupportedModelError(error.what, where=error.where, hint=error.hint) from error
        nodes = {names[old]: n for old, n in tracer.builder.nodes.items() if old in names}
        draws = {names[old]: n for old, n in tracer.builder.drawn.items() if old in names}
        verify(
            Checked(network, twin, program.graph, entry, tracer.values, nodes, draws,
                    answer, logits.node),
            example,
        )  # fmt: skip
    return Trace(network, notes)
