"""Tests that only `make test-long` runs, and what `make test` keeps of each.

`@pytest.mark.long("test_a", "workflow/test_b.py::test_c")` names the tests that have the core of its subject, and
`@pytest.mark.long(after=2)` leaves the first two cases of its parameters to `make test`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COLLECTED = pytest.StashKey[list["Case"]]()
"""All that was collected, also what the options deselect."""


@dataclass(frozen=True)
class Case:
    """A test with one set of its parameters."""

    file: str
    test: str
    kept: tuple[str, ...] | None = None
    """Which tests have the core of it in the default run; None if it is there itself."""
    proof: bool = False

    @property
    def node(self) -> str:
        """Its name, as a mark names it."""
        return f"{self.file}::{self.test}"


def case_of(item: pytest.Item) -> Case:
    """Return what the marks of a test say."""
    marks = list(item.iter_markers("long"))
    file = item.path.relative_to(ROOT).as_posix()
    test = getattr(item, "originalname", item.name)
    names = [name for mark in marks for name in mark.args]
    if any("after" in mark.kwargs for mark in marks):
        names.append(test)
    kept = tuple(name if "::" in name else f"{file}::{name}" for name in names)
    return Case(file, test, kept if marks else None, item.get_closest_marker("proof") is not None)


def not_kept(cases: Iterable[Case]) -> list[str]:
    """Return what long tests say is in the default run, and is not. Files that were not collected are not judged."""
    cases = list(cases)
    files = {case.file for case in cases}
    default = {case.node for case in cases if case.kept is None and not case.proof}
    return sorted(
        {
            f"{case.node}: {name} is not in the default run"
            for case in cases
            for name in case.kept or ()
            if name.partition("::")[0] in files and name not in default
        }
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _leave_first_cases(items)
    config.stash[COLLECTED] = [case_of(item) for item in items]


def _leave_first_cases(items: Iterable[pytest.Item]) -> None:
    """Take the mark from the cases before the one that it is `after`. A case that somebody names is the first."""
    seen: Counter[str] = Counter()
    for item in items:
        mark = item.get_closest_marker("long")
        if mark is not None and "after" in mark.kwargs and item.get_closest_marker("proof") is None:
            test = item.nodeid.partition("[")[0]
            seen[test] += 1
            if seen[test] <= mark.kwargs["after"]:
                item.own_markers.remove(mark)


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """Under `--collect-only`, one line for each long test: what has its core."""
    if not config.option.collectonly:
        return []
    cases = dict.fromkeys(map(case_of, items))
    return [f"{case.node}: {', '.join(case.kept)}" for case in cases if case.kept is not None]
