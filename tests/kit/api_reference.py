"""docs/api.md: what plugins import, from the source: signatures, attributes and docstrings. `make docs` writes it."""

import ast
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Final

__all__ = ["SECTIONS", "reference"]

ROOT: Final = Path(__file__).parents[2]

SECTIONS: Final[dict[str, dict[str, Sequence[str]]]] = {
    "The contract": {"syncline.provider": ()},
    "Results": {
        "syncline.messages.sync": (
            "SyncResult",
            "CycleStatus",
            "TableProgress",
            "VectorProgress",
            "CycleProgress",
            "Committed",
        )
    },
    "The built-in engine": {"syncline.engine": ("run_cycle",), "syncline.engine.cycle": ("SyncEngine",)},
    "Stores and embeddings": {
        "syncline.stores.postgres": ("PostgresStore",),
        "syncline.stores.vectors": ("VectorStore", "PointPayload"),
        "syncline.embeddings.service": ("EmbeddingService",),
    },
    "Tests": {
        "syncline.testing.conformance": ("exercise_provider",),
        "syncline.testing.postgres": ("postgres_server", "new_database"),
        "syncline.testing.graphs": ("graph",),
        "syncline.testing.temporal": ("temporal_client",),
        "syncline.testing.one_graph": ("TestGraph",),
    },
}
"""Heading -> module -> the names of it; all of its `__all__` where none is given."""

_HEAD = """\
# What plugins import

Generated from the source by `make docs`; [providers.md](providers.md) tells how to use it, and
[which of it stays](providers.md#versions-of-the-contract). All of it is typed. The tables of the write-db are in
[databases.md](databases.md), the messages that Temporal keeps in [temporal-reference.md](temporal-reference.md).
"""

_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def reference() -> str:
    """Return the page."""
    lines = [_HEAD]
    for heading, modules in SECTIONS.items():
        lines.append(f"## {heading}\n")
        for module, chosen in modules.items():
            for name in chosen or _exported(module):
                lines.extend(_entry(module, name))
    return "\n".join(lines).rstrip() + "\n"


@cache
def _parsed(module: str) -> ast.Module:
    path = ROOT / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _exported(module: str) -> Sequence[str]:
    """Return the names in `__all__` that the module itself defines, in the order of its source."""
    exported: set[str] = set()
    defined: list[str] = []
    for statement in _parsed(module).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=elements)):
                exported = {str(e.value) for e in elements if isinstance(e, ast.Constant)}
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                defined.append(name)
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                defined.append(statement.name)
    return [name for name in defined if name in exported]


def _entry(module: str, name: str) -> Iterator[str]:
    body = _parsed(module).body
    for statement, after in zip_longest(body, body[1:]):
        match statement:
            case ast.ClassDef(name=found) if found == name:
                yield f"### {name}\n\n`from {module} import {name}`\n"
                yield from _class(statement)
                return
            case ast.FunctionDef(name=found) | ast.AsyncFunctionDef(name=found) if found == name:
                yield (
                    f"### {name}\n\n`from {module} import {name}`\n"
                    if not _fixture(statement)
                    else (f'### {name}\n\nA fixture of pytest: `pytest_plugins = ["{module}"]`.\n')
                )
                if not _fixture(statement):
                    yield f"`{_signature(statement)}`\n"
                yield f"{_text(statement)}\n"
                return
            case ast.Assign(targets=[ast.Name(id=found)]) | ast.AnnAssign(target=ast.Name(id=found)) if (
                found == name
            ):
                said = _docstring_in(after)
                shown = ast.unparse(statement.value) if statement.value is not None else ""
                yield f"### {name}\n\n`{name} = {shown}`\n\n{said}\n"
                return
    raise LookupError(f"{module} defines no {name}")


def _class(definition: ast.ClassDef) -> Iterator[str]:
    yield f"{_text(definition)}\n"
    rows = [
        f"| `{name}` | `{_one_line(kind)}` | {_default(value)} | {said} |"
        for name, kind, value, said in _attributes(definition)
    ]
    if rows:
        yield "| Attribute | Type | Default | |\n|---|---|---|---|"
        yield "\n".join(rows) + "\n"
    methods = [
        f"- `{_signature(method)}`: {_text(method)}"
        for method in definition.body
        if isinstance(method, _Function) and not method.name.startswith("_") and ast.get_docstring(method)
    ]
    if methods:
        yield "\n".join(methods) + "\n"


def _attributes(definition: ast.ClassDef) -> Iterator[tuple[str, ast.expr, ast.expr | None, str]]:
    """Yield name, type, default and docstring of each public one."""
    body: list[ast.stmt | None] = [*definition.body, None]
    for statement, after in pairwise(body):
        said = _docstring_in(after).replace("|", "\\|")
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=kind, value=value):
                if not name.startswith("_"):
                    yield name, kind, value, said
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant() as value):
                if not name.startswith("_"):
                    yield name, ast.Name(type(value.value).__name__), value, said


def _signature(function: _Function) -> str:
    arguments = ast.unparse(function.args).removeprefix("self").removeprefix(", ")
    if any(isinstance(found, ast.Name) and found.id == "property" for found in function.decorator_list):
        return f"{function.name}: {_one_line(function.returns)}"
    begin = "async " if isinstance(function, ast.AsyncFunctionDef) else ""
    return f"{begin}{function.name}({arguments}) -> {_one_line(function.returns)}"


def _fixture(function: _Function) -> bool:
    return any("fixture" in ast.unparse(decorator) for decorator in function.decorator_list)


def _default(value: ast.expr | None) -> str:
    return "" if value is None else f"`{_one_line(value)}`"


def _one_line(found: ast.expr | None) -> str:
    return "" if found is None else ast.unparse(found).replace("|", "\\|").replace('"', "")


def _text(definition: _Definition) -> str:
    """Return a docstring with each of its paragraphs on a line."""
    paragraphs = (ast.get_docstring(definition) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _docstring_in(statement: ast.stmt | None) -> str:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(said))):
            return " ".join(said.split())
    return ""


if __name__ == "__main__":
    sys.stdout.write(reference())
