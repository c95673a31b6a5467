"""What the SDK's sandbox guards is guarded here: it is off in production (decision 0012)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

WORKFLOWS = sorted((Path(__file__).parents[2] / "workflows").glob("*.py"))
_MODULES = {
    "asyncio",
    "collections",
    "dataclasses",
    "datetime",
    "re",
    "typing",
    "temporalio",
    "activities",
    "syncline",
    "workflows",
}
_NOT_OF_ASYNCIO = {"run", "to_thread", "get_event_loop", "new_event_loop", "create_subprocess_exec"}
_CLOCKS = {"now", "utcnow", "today", "fromtimestamp"}
_BUILTINS = {"open", "input", "print", "exec", "eval", "id", "hash", "globals", "__import__", "breakpoint"}
_MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_CONTAINERS = {"list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter", "count"}


def faults(source: str) -> Iterator[str]:
    """What may differ between a run and its replay, or between two runs of one process."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            )
            yield from (
                f"{node.lineno}: imports {name}" for name in names if name.partition(".")[0] not in _MODULES
            )
        elif isinstance(node, ast.Global):
            yield f"{node.lineno}: global"
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in _BUILTINS:
                yield f"{node.lineno}: calls {called.id}"
            elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
                owner = called.value.id
                if (owner in {"datetime", "date"} and called.attr in _CLOCKS) or (
                    owner == "asyncio" and called.attr in _NOT_OF_ASYNCIO
                ):
                    yield f"{node.lineno}: calls {owner}.{called.attr}"
    for scope in [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]:
        for statement in scope.body:
            if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
                continue
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                continue
            made = statement.value.func if isinstance(statement.value, ast.Call) else None
            if isinstance(statement.value, _MUTABLE) or (
                isinstance(made, ast.Name) and made.id in _CONTAINERS
            ):
                yield f"{statement.lineno}: what all runs share can change"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_code_is_deterministic(path: Path) -> None:
    assert list(faults(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from random import random",
        "from os import environ",
        "now = datetime.now()",
        "asyncio.to_thread(print)",
        "open('x')",
        "seen = []",
        "seen: dict[str, int] = {}",
        "seen = defaultdict(list)",
        "class A:\n    seen = set()",
        "def f():\n    global seen",
    ],
)
def test_faults_are_found(source: str) -> None:
    """Else the test above proves nothing."""
    assert list(faults(source))
