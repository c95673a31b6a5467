"""Paging: how much of the books is read at once, and where a page goes on."""

from collections.abc import Iterable
from itertools import islice
from typing import Final, TypeVar
from uuid import UUID

from pydantic import BaseModel

from syncline.errors import InputInvalid
from syncline.quoting import shown

__all__ = ["checked_limit", "first_page", "place_after"]

EntryT = TypeVar("EntryT", bound=BaseModel)

_AT_MOST: Final = 10_000
"""Rows of one page: they are read into memory."""
_BYTES: Final = 1_000_000
"""Of one page as JSON: Temporal refuses a payload of more than two million."""


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
        raise InputInvalid(f"{shown(after)} is no place where a page ended: give its `next`.") from None


def first_page(entries: Iterable[EntryT], limit: int) -> tuple[EntryT, ...]:
    """Return the first entries that make a page: up to `limit`, fewer if they are large, at least one."""
    page: list[EntryT] = []
    size = 0
    for entry in islice(entries, limit):
        size += len(entry.model_dump_json().encode())
        if page and size > _BYTES:
            break
        page.append(entry)
    return tuple(page)
