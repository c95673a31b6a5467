"""Words: how moments, rows and refusals are told to a person."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator

from syncline.engine.fingerprint import without_values

__all__ = ["Told", "moment", "refusal", "row_name"]

Told = Annotated[str, AfterValidator(without_values)]
"""What a store said, without the row's values: it goes into run histories, where rows never are."""


def moment(at: datetime) -> str:
    """Return a moment to the second, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def row_name(table: str, key: Sequence[str]) -> str:
    """Return a row as `nodes 'n1'`."""
    return " ".join([table, *(f"'{part}'" for part in key)])


def refusal(sqlstate: str, message: str, next_retry_at: datetime | None) -> str:
    """Return what the graph-db said about a row, and what follows."""
    told = f"[{sqlstate}] {without_values(message)}"
    return f"dead: {told}" if next_retry_at is None else f"refused: {told}; next try {moment(next_retry_at)}"
