"""Modules of the library import each other in one direction: no circle, type-only and late imports included."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _module(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def _imported(path: Path, modules: set[str]) -> set[str]:
    """Return the modules that a file imports anywhere: also in functions and under TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from package import module` names the module; `from module import name` its home.
            found |= (members & modules) or {node.module}
    return (found & modules) - {_module(path)}


def _graph() -> dict[str, set[str]]:
    paths = {_module(path): path for path in sorted((ROOT / "syncline").rglob("*.py"))}
    return {module: _imported(path, set(paths)) for module, path in paths.items()}


def _circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of one circle, first one repeated at the end; nothing without one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle[::-1]
    return []


def test_modules_import_without_a_circle() -> None:
    assert _circle(_graph()) == []


def test_circle_of_type_only_imports_is_found() -> None:
    graph = _graph()
    assert "syncline.registry" in graph["syncline.control.services"]
    graph["syncline.registry"] |= {"syncline.control.services"}
    assert set(_circle(graph)) >= {"syncline.registry", "syncline.control.services"}
