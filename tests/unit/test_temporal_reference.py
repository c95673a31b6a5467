"""docs/temporal-reference.md is what the definitions, the names and the messages say."""

from pathlib import Path

import pytest

from syncline import names
from syncline.messages.sync import CycleStatus, SyncGraphInput, SyncState
from tests.kit.temporal_reference import ERRORS, MESSAGES, reference

PAGE = (Path(__file__).parents[2] / "docs" / "temporal-reference.md").read_text(encoding="utf-8")


def section(heading: str, *, level: int = 2) -> str:
    """Return the text under a heading, up to the next one of its level."""
    marks = "#" * level
    return PAGE.partition(f"\n{marks} {heading}\n")[2].partition(f"\n{marks} ")[0]


def test_reference_is_up_to_date() -> None:
    assert reference() == PAGE, "run: make docs"


@pytest.mark.parametrize("heading", ["Workflows", "Activities", "Signals", "Queries", "Search attributes"])
def test_reference_explains_every_name(heading: str) -> None:
    """A row without a meaning is a definition without a docstring."""
    rows = [line for line in section(heading).splitlines() if line.startswith("| `")]
    assert rows
    assert [row for row in rows if row.endswith("| |")] == []


@pytest.mark.parametrize(
    "name", [pytest.param(value, id=name) for name, value in vars(names).items() if name.isupper()]
)
def test_reference_has_every_wire_name(name: object) -> None:
    if isinstance(name, str) and name not in (names.TASK_QUEUE, names.ENTRY_POINT_GROUP, names.SECOND):
        assert f"| `{name}` |" in PAGE


def test_reference_meets_the_messages_inside_messages() -> None:
    assert {SyncGraphInput, SyncState, CycleStatus} <= set(MESSAGES)


@pytest.mark.parametrize("error", ERRORS, ids=lambda cls: cls.__name__)
def test_reference_sorts_errors_by_retryability(error: type) -> None:
    retried, refused = section("Errors that are retried"), section("Errors that are not retried")
    row = f"| `{error.__name__}` |"
    assert (row in retried, row in refused) == (error.retryable, not error.retryable)  # type: ignore[attr-defined]
