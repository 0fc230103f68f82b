"""What may import what, and what must not be imported at all."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bnnmcu

PACKAGE = Path(bnnmcu.__file__).parent
_HEAVY = {
    "torch",
    "onnx",
    "unicorn",
    "ziglang",
    "mlxtend",
    "platformio",
    "pandas",
    "matplotlib",
    "scipy",
    "pyarrow",
    "PIL",
    "dask",
    "distributed",
}

# What a room may import directly from bnnmcu, besides itself; what these may import, it may too.
_ROOMS: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "lfsr": {"errors"},
    "cifar_jpeg": {"errors"},
    "data": {"cifar_jpeg"},
    "outputs": {"errors"},
    "modelfile": {"outputs"},
    "resources": {"errors"},
    "packing": {"errors"},
    "field": {"errors"},
    "boards": {"errors", "resources"},
    "graph": {"lfsr"},
    "graphfile": {"graph", "modelfile"},
    "reference": {"graph", "packing"},
    "nn": {"data", "modelfile"},
    "network": {"modelfile"},
    "frontend": {"network", "modelfile", "nn.config"},
    "passes": {"network", "graph"},
    "compiler": {"frontend", "passes"},
    "backend": {
        "graph",
        "graphfile",
        "boards",
        "resources",
        "packing",
        "field",
        "reference",
        "__init__",
    },
    "toolchain": {"backend", "boards", "modelfile", "reference"},
    "link": {"errors"},
    "evaluate": {"toolchain", "reference", "data"},
    "target": {"backend", "toolchain", "link"},
    "verify": {"evaluate", "target"},
    "bench": {"evaluate", "target"},
    "evidence": {"verify", "bench"},
    "provenance": {"target"},
    "store": {"reference", "outputs"},
    "attack": {"store", "target", "evaluate", "compiler", "nn"},
    "cluster": {"attack", "target"},
    "agreement": {"attack", "passes"},
    "inspect": {"passes", "backend"},
    "compare": {"compiler", "evaluate", "target"},
    "report": {"attack", "inspect", "resources"},
    "paper": {"report", "attack", "verify", "cluster"},
    "api": {"compiler", "backend"},
    "cli": {
        "paper",
        "provenance",
        "cluster",
        "report",
        "attack",
        "agreement",
        "evidence",
        "compiler",
        "compare",
        "inspect",
    },
}


def _closure(room: str) -> set[str]:
    seen: set[str] = set()
    todo = [room]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            # nn.config needs nothing but errors, so it opens no other door.
            todo += _ROOMS.get(name, {"errors"} if "." in name else set())
    return seen | {"__init__"}


def _room(module: str) -> str:
    """bnnmcu.nn.config.x to nn; a bare bnnmcu to __init__."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def _imports(path: Path) -> list[tuple[int, str]]:
    """Modules of bnnmcu that a file imports, wherever in the file, in full."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                # "from bnnmcu import lfsr" names a module, "from bnnmcu.lfsr import MIX" a value.
                module = full if _is_module(full) else str(node.module)
                found.append((node.lineno, module))
    return [(line, name) for line, name in found if name.split(".")[0] == "bnnmcu"]


def _is_module(name: str) -> bool:
    if not name.startswith("bnnmcu."):
        return False
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").is_file()


def _files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "_resources" not in path.parts)


def test_every_file_has_a_room() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in _files()}
    rooms -= {"__main__"}
    assert rooms <= _ROOMS.keys(), "name the new room in the table, with what it may import"
    assert len(_files()) > 20


@pytest.mark.parametrize("path", _files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__main__":
        room = "cli"
    allowed = _closure(room)
    if room == "__init__":
        # For type checkers only: at run time it is loaded when it is first asked for,
        # which test_importing_is_light would notice.
        allowed = allowed | {"api", "compare"}
    for line, module in _imports(path):
        target = _room(module)
        partial = ".".join(module.split(".")[1:3])
        assert target == room or target in allowed or partial in allowed, (
            f"{path.name}:{line}: {room} must not import {module}"
        )


def test_the_rule_has_teeth(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("from bnnmcu import cli\ndef f():\n    import bnnmcu.nn.paper as p\n")
    assert [name for _, name in _imports(file)] == ["bnnmcu.cli", "bnnmcu.nn.paper"]
    for room, module in (
        ("lfsr", "graph"),
        ("graph", "reference"),
        ("frontend", "nn"),
        ("frontend", "backend"),
        ("backend", "toolchain"),
        ("link", "graph"),
        ("toolchain", "attack"),
        ("store", "attack"),
        ("attack", "cli"),
    ):
        assert module not in _closure(room), (room, module)


def test_all_names_what_exists() -> None:
    for path in _files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        public = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            and [t.id for t in node.targets if isinstance(t, ast.Name)] == ["__all__"]
        ]
        defined = set()
        typed = [n.body for n in tree.body if isinstance(n, ast.If)]
        for node in [*tree.body, *(inner for body in typed for inner in body)]:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    defined |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                defined.add(node.target.id)
            elif isinstance(node, ast.ImportFrom | ast.Import):
                defined |= {alias.asname or alias.name for alias in node.names}
        for names in public:
            assert set(names) <= defined, f"{path}: {set(names) - defined}"
            assert len(names) == len(set(names))


def _loaded(code: str) -> set[str]:
    program = f"{code}\nimport sys\nprint(*sorted(sys.modules), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stdout.split()}


_LIGHT = [
    "bnnmcu",
    "bnnmcu.cli.main",
    "bnnmcu.data",
    "bnnmcu.paper.recipes",
    "bnnmcu.paper.trained",
    "bnnmcu.paper.site",
    "bnnmcu.cli.paper",
    "bnnmcu.modelfile",
    "bnnmcu.reference",
    "bnnmcu.frontend.paper",
    "bnnmcu.frontend.qonnx",
    "bnnmcu.frontend.trace",
    "bnnmcu.compiler",
    "bnnmcu.api",
    "bnnmcu.backend.emit",
    "bnnmcu.toolchain.native",
]


@pytest.mark.parametrize("module", _LIGHT)
def test_importing_is_light(module: str) -> None:
    if not _is_module(module) and module != "bnnmcu":
        pytest.skip(f"{module} does not exist")
    loaded = _loaded(f"import {module}")
    assert "bnnmcu" in loaded
    assert not loaded & _HEAVY


def test_help_is_light() -> None:
    if not _is_module("bnnmcu.cli.main"):
        pytest.skip("bnnmcu.cli.main does not exist")
    loaded = _loaded(
        "import bnnmcu.cli.main as m\n"
        "try:\n    m.main(['--help'])\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert "click" in loaded
    assert not loaded & _HEAVY


def test_this_test_would_notice_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    assert "torch" in _loaded("import bnnmcu.nn.paper")
