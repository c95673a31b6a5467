"""Notes of paused Schedules: why and by whom, in one line that Temporal's own tools show too."""

import re
from typing import Final, NamedTuple

__all__ = ["PAUSED_WITH_GRAPH", "PauseNote", "graph_note", "operators_note", "read_note"]

PAUSED_WITH_GRAPH: Final = "Paused by Syncline: the graph is paused."
"""Begins the note of a Schedule paused because its graph is paused. Any other pause is an operator's and
stays."""

_AUTHOR: Final = re.compile(r"(?P<reason>.*) \(by (?P<who>[^()\n]{1,200})\)", re.DOTALL)
_NO_NAME: Final = re.compile(r"[()\n]")


class PauseNote(NamedTuple):
    """What a note says."""

    with_graph: bool
    """Whether the Schedule is paused because its graph is."""
    reason: str | None
    who: str | None

    @property
    def text(self) -> str:
        """Why and by whom, for people."""
        by = "" if self.who is None else f" (by {self.who})"
        return f"{self.reason or 'no reason given'}{by}"


def operators_note(reason: str, who: str) -> str:
    """Return the note of a pause by an operator."""
    name = _NO_NAME.sub("", who).strip()[:200]
    return f"{reason} (by {name})" if name else reason


def graph_note(reason: str, who: str) -> str:
    """Return the note of a Schedule that is paused with its graph, for a reason that may be empty."""
    told = operators_note(reason.strip(), who).strip()
    return f"{PAUSED_WITH_GRAPH} {told}".strip()


def read_note(note: str | None) -> PauseNote:
    """Return what the note of a paused Schedule says; one that was not written here is all reason."""
    text = note or ""
    with_graph = text.startswith(PAUSED_WITH_GRAPH)
    if with_graph:
        text = text.removeprefix(PAUSED_WITH_GRAPH)
    said = _AUTHOR.fullmatch(text if text.startswith(" (by ") or not with_graph else text.lstrip())
    if said is None:
        return PauseNote(with_graph, text.strip() or None, None)
    return PauseNote(with_graph, said["reason"].strip() or None, said["who"])
