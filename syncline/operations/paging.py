"""Paging: how much of the books is read at once, and where a page goes on."""

from typing import Final
from uuid import UUID

from syncline.errors import InputInvalid

__all__ = ["checked_limit", "place_after"]

_AT_MOST: Final = 10_000
"""Rows of one page: they are read into memory."""


def checked_limit(limit: int) -> int:
    """Return the limit of a page, or raise InputInvalid if it is none."""
    if not 1 <= limit <= _AT_MOST:
        raise InputInvalid(f"The limit of a page is 1 to {_AT_MOST}, not {limit}.")
    return limit


def place_after(after: str | None) -> tuple[str | None, UUID | None]:
    """Return the name and the row id at which a page ended, as `<name>/<row id>`, or raise InputInvalid."""
    if after is None:
        return None, None
    name, _, row_id = after.rpartition("/")
    try:
        return name, UUID(row_id)
    except ValueError:
        raise InputInvalid(f"'{after}' is no place where a page ended: give its `next`.") from None
