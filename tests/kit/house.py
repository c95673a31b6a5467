"""What the house is made of, in figures: `python -m tests.kit.house [REVISION]`."""

import ast
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
CODE = ("syncline", "activities", "workflows", "providers")
CYCLE = "syncline.engine"
"""From where one cycle of the built-in engine is run."""
MANY = 400
REASON = "One module because"


def code_files(root: Path, suffix: str) -> list[Path]:
    """Return the files of the product's code: the library, the application, and `worker.py`."""
    found = [path for folder in CODE for path in (root / folder).rglob(f"*{suffix}")]
    return sorted([*found, *root.glob(f"worker{suffix}")])


def import_graph(root: Path, *, late: bool = True) -> dict[str, set[str]]:
    """Return which modules each module of ours imports; with those in functions and for types if `late`."""
    paths = {_module(path, root): path for path in code_files(root, ".py")}
    return {module: _imports(path, module, set(paths), late=late) for module, path in paths.items()}


def circle_of(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the modules of one circle, the first repeated at the end; nothing if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle[::-1]
    return []


def in_circles(graph: Mapping[str, set[str]]) -> set[str]:
    """Return the modules that can be reached from themselves."""
    return {module for module in graph if module in reached(graph, *graph[module])}


def reached(graph: Mapping[str, set[str]], *starts: str) -> set[str]:
    """Return the modules that these import, themselves included, over any number of steps."""
    seen: set[str] = set()
    todo = list(starts)
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += graph.get(module, ())
    return seen


def long_modules(root: Path) -> Iterator[tuple[Path, int, str | None]]:
    """Yield each module of more than 400 lines, its lines, and why it is one; None if it does not say."""
    for path in code_files(root, ".py"):
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > MANY:
            said = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
            _, found, reason = said.partition(REASON)
            yield path, lines, f"{REASON}{reason.partition('. ')[0]}" if found else None


def report(root: Path) -> Iterator[str]:
    """Yield the figures, a line each."""
    python, sql = code_files(root, ".py"), code_files(root, ".sql")
    graph = import_graph(root)
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in python]
    yield f"Python files            {len(python)}, {sum(lines)} lines, median {median(lines):.0f}"
    sql_lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in sql]
    yield f"SQL files               {len(sql)}, {sum(sql_lines)} lines, median {median(sql_lines):.0f}"
    yield f"rooms                   {len({path.parent for path in python if path.parent != root})}"
    yield f"modules in circles      {len(in_circles(graph))}"
    yield f"modules under one cycle {len(reached(import_graph(root, late=False), CYCLE))}"
    long = list(long_modules(root))
    yield f"modules over {MANY} lines  {len(long)}"
    for path, count, reason in long:
        yield f"  {path.relative_to(root)} ({count}): {reason or 'says no reason'}"


def _module(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _imports(path: Path, module: str, modules: set[str], *, late: bool) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree) if late else _at_import(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            # `from package import module` names the module; `from module import name` its home.
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (members & modules) or {node.module}
    return (found & modules) - {module}


def _at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        yield node
        if isinstance(node, ast.With):
            yield from node.body


def main() -> None:
    """Print the figures of this checkout, or of a revision of it."""
    if not sys.argv[1:]:
        sys.stdout.write("\n".join(report(ROOT)) + "\n")
        return
    packed = subprocess.run(["git", "archive", sys.argv[1]], cwd=ROOT, capture_output=True, check=True).stdout
    with TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(folder, filter="data")
        sys.stdout.write("\n".join(report(Path(folder))) + "\n")


if __name__ == "__main__":
    main()
