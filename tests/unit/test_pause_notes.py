"""Notes of paused Schedules: what is written is read, and what others wrote is a reason."""

import pytest

from syncline.temporal.schedules.notes import (
    PAUSED_WITH_GRAPH,
    PauseNote,
    graph_note,
    operators_note,
    read_note,
)


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (operators_note("maintenance (OPS-1)", "anna"), PauseNote(False, "maintenance (OPS-1)", "anna")),
        (operators_note("two\nlines", "a (b) c"), PauseNote(False, "two\nlines", "a b c")),
        (operators_note("by hand", ""), PauseNote(False, "by hand", None)),
        ("by somebody in the Web UI", PauseNote(False, "by somebody in the Web UI", None)),
        (None, PauseNote(False, None, None)),
        (PAUSED_WITH_GRAPH, PauseNote(True, None, None)),
        (graph_note("", ""), PauseNote(True, None, None)),
        (graph_note("too big", "anna"), PauseNote(True, "too big", "anna")),
        (graph_note("", "anna"), PauseNote(True, None, "anna")),
    ],
)
def test_read_note_returns_reason_and_author(note: str | None, said: PauseNote) -> None:
    assert read_note(note) == said
