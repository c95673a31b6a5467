"""Named statements: each is used, each use has its statement, and a name is given once in a package."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from syncline.sql import named_statements

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in ROOT.glob("syncline/**/sql") if path.is_dir())


@cache
def parsed(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def package_of(name: str, module: Path) -> str | None:
    """Return the package whose statements the function `name` of a module returns; None if it is no such function."""
    for node in parsed(module).body:
        match node:
            case ast.ImportFrom(module=str(origin), names=names) if any(
                (alias.asname or alias.name) == name for alias in names
            ):
                path = ROOT / (origin.replace(".", "/") + ".py")
                return package_of("sql", path) if path.exists() else None
            case (
                ast.Assign(
                    targets=[ast.Name(id=target)], value=ast.Call(func=called, args=[ast.Constant(value), *_])
                )
                | ast.AnnAssign(
                    target=ast.Name(id=target), value=ast.Call(func=called, args=[ast.Constant(value), *_])
                )
            ) if ast.unparse(called) == "statements_of" and target.endswith(name.removeprefix("_")):
                return str(value)
            case ast.FunctionDef(name=defined) if defined == name:
                return next(
                    (
                        package_of(call.func.id, module)
                        for call in ast.walk(node)
                        if isinstance(call, ast.Call)
                        and isinstance(call.func, ast.Name)
                        and call.func.id != name
                    ),
                    None,
                )
    return None


def uses() -> Iterator[tuple[str, str, Path]]:
    """Yield the package, the name and the module of each statement that a module asks for by a constant."""
    for module in ROOT.glob("syncline/**/*.py"):
        for node in ast.walk(parsed(module)):
            match node:
                case ast.Call(
                    func=ast.Name(id=("sql" | "_sql") as name), args=[ast.Constant(value=str(used)), *_]
                ):
                    package = package_of(name, module)
                    assert package is not None, f"{module}: whose statements does {name} return?"
                    yield package, used, module


def test_named_statements_exist_for_each_use() -> None:
    found = list(uses())
    assert len(found) > 150
    assert [
        f"{module}: {used}" for package, used, module in found if used not in named_statements(package)
    ] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_named_statements_are_used(folder: Path) -> None:
    """A name that no module of the core has as a string is nobody's."""
    package = ".".join(folder.relative_to(ROOT).parts)
    readers = [
        module for module in ROOT.glob("syncline/**/*.py") if package in module.read_text(encoding="utf-8")
    ]
    strings = {
        node.value
        for module in {*readers, *folder.rglob("*.py")}
        for node in ast.walk(parsed(module))
        if isinstance(node, ast.Constant)
    }
    assert named_statements(package).keys() - strings == set()
