"""Words: how moments, rows and refusals are told to a person."""

from collections.abc import Sequence
from datetime import UTC, datetime

from syncline.masking import told

__all__ = ["moment", "refusal", "row_name"]


def moment(at: datetime) -> str:
    """Return a moment to the second, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def row_name(table: str, key: Sequence[str]) -> str:
    """Return a row as `nodes 'n1'`."""
    return " ".join([table, *(f"'{part}'" for part in key)])


def refusal(sqlstate: str, message: str, next_retry_at: datetime | None) -> str:
    """Return what the graph-db said about a row, and what follows."""
    said = f"[{sqlstate}] {told(sqlstate, message)}"
    return f"dead: {said}" if next_retry_at is None else f"refused: {said}; next try {moment(next_retry_at)}"
