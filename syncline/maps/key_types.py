"""Key types: the Postgres types that a key may have, and the one text form of each value.

The stage and the bookkeeping tables have keys as text, whatever their type. Equal values must have one text
there: numeric 1.0 and 1.00, a uuid in capitals, a date under any DateStyle. The write-db, its triggers, the
graph-db (syncline.engine.key_forms) and the worker all make the same form:

| kind | form |
|---|---|
| text | the text itself |
| uuid | lower case, with hyphens |
| integer, numeric | digits without trailing zeros: an integer and an equal numeric have the same form |
| date | ISO 8601 |
| timestamp | ISO 8601 with a space, without trailing zeros; in UTC if it has a zone |
| bytes | hex digits |
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

__all__ = ["JSON_ARRAY", "TEXT", "KeyType", "Kind", "element_type", "key_place", "key_type"]

JSON_ARRAY: Final = "jsonb"
"""The type of a column whose links are the elements of a JSON array."""


class Kind(StrEnum):
    """What a key's values are."""

    TEXT = "text"
    UUID = "uuid"
    INTEGER = "integer"
    NUMERIC = "numeric"
    DATE = "date"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamptz"
    BYTES = "bytes"


_KINDS: Final[Mapping[str, Kind]] = {
    "text": Kind.TEXT,
    "varchar": Kind.TEXT,
    "character varying": Kind.TEXT,
    "name": Kind.TEXT,
    "uuid": Kind.UUID,
    "smallint": Kind.INTEGER,
    "int2": Kind.INTEGER,
    "integer": Kind.INTEGER,
    "int": Kind.INTEGER,
    "int4": Kind.INTEGER,
    "bigint": Kind.INTEGER,
    "int8": Kind.INTEGER,
    "numeric": Kind.NUMERIC,
    "decimal": Kind.NUMERIC,
    "date": Kind.DATE,
    "timestamp": Kind.TIMESTAMP,
    "timestamp without time zone": Kind.TIMESTAMP,
    "timestamptz": Kind.TIMESTAMPTZ,
    "timestamp with time zone": Kind.TIMESTAMPTZ,
    "bytea": Kind.BYTES,
}


@dataclass(frozen=True)
class KeyType:
    """A type that keys may have."""

    name: str
    """The type, without length or precision."""
    kind: Kind

    @property
    def plain(self) -> bool:
        """Whether it is text, so that values are their own form."""
        return self.name == "text"

    @property
    def native(self) -> str:
        """The type of expressions: text for every type of texts."""
        return "text" if self.kind is Kind.TEXT else self.name

    def canonical(self, text: str) -> str:
        """Return the form of a value given as text by a person; raise ValueError if it is none."""
        stripped = text.strip()
        match self.kind:
            case Kind.TEXT:
                return text
            case Kind.UUID:
                return str(UUID(stripped))
            case Kind.INTEGER:
                return str(int(stripped))
            case Kind.NUMERIC:
                return _numeric(stripped)
            case Kind.DATE:
                return stripped if _ODD_DATE.fullmatch(stripped) else date.fromisoformat(stripped).isoformat()
            case Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
                return _timestamp(stripped, zoned=self.kind is Kind.TIMESTAMPTZ)
            case Kind.BYTES:
                return bytes.fromhex(stripped.removeprefix("\\x")).hex()

    def place(self, form: str) -> object:
        """Return something that orders forms of this type as capture does."""
        match self.kind:
            case Kind.INTEGER:
                return int(form)
            case Kind.NUMERIC:
                # Postgres: NaN is greater than everything.
                return (form == "NaN", Decimal(0) if form == "NaN" else Decimal(form))
            case Kind.DATE:
                return _date_place(form)
            case Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
                day, _, time = form.removesuffix(" BC").partition(" ")
                era = " BC" if form.endswith(" BC") else ""
                return (*_date_place(day + era), time.removesuffix("+00"))
            case _:
                return form.encode("utf-8", "surrogateescape")


TEXT: Final = KeyType("text", Kind.TEXT)

_LENGTH: Final = re.compile(r"\s*\([^)]*\)")
_ODD_DATE: Final = re.compile(r"-?infinity|\d{5,7}-\d\d-\d\d|\d{4,7}-\d\d-\d\d BC")
_ODD_TIMESTAMP: Final = re.compile(
    r"-?infinity|(\d{5,7}-\d\d-\d\d|(?=.* BC$)\d{4,7}-\d\d-\d\d) \d\d:\d\d:\d\d(\.\d{0,5}[1-9])?(\+00)?( BC)?"
)


@lru_cache(maxsize=1000)
def key_type(type_: str) -> KeyType | None:
    """Return the key type of a column, as a map spells it; None for a type that keys cannot have."""
    name = _LENGTH.sub("", " ".join(type_.strip().lower().split()))
    kind = _KINDS.get(name)
    return None if kind is None else KeyType(name, kind)


def element_type(type_: str) -> KeyType | None:
    """Return the key type of an array's elements; None for what is no array of keys.

    Elements of a JSON array are texts, whatever they are in JSON.
    """
    spelled = type_.strip().lower()
    if spelled == JSON_ARRAY:
        return TEXT
    return key_type(spelled.removesuffix("[]")) if spelled.endswith("[]") else None


def key_place(key: Sequence[str], types: Sequence[KeyType]) -> tuple[Any, ...]:
    """Return something that orders keys of these types as capture does."""
    return tuple(type_.place(part) for type_, part in zip(types, key, strict=False))


def _numeric(text: str) -> str:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a number") from None
    if value.is_nan():
        return "NaN"
    if value.is_infinite():
        return "Infinity" if value > 0 else "-Infinity"
    plain = format(value, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in ("-0", "") else plain


def _timestamp(text: str, *, zoned: bool) -> str:
    if _ODD_TIMESTAMP.fullmatch(text) and ("+00" in text) == (zoned and "infinity" not in text):
        return text
    moment = datetime.fromisoformat(text)
    if (moment.tzinfo is None) == zoned:
        raise ValueError(f"{text!r} has {'no' if zoned else 'a'} zone")
    moment = moment.astimezone(UTC).replace(tzinfo=None) if zoned else moment
    written = moment.isoformat(sep=" ")
    return (written.rstrip("0") if "." in written else written) + ("+00" if zoned else "")


def _date_place(form: str) -> tuple[int, int, int, int]:
    if form.endswith("infinity"):
        return (-1 if form.startswith("-") else 1, 0, 0, 0)
    year, month, day = (int(part) for part in form.removesuffix(" BC").split("-"))
    return (0, 1 - year if form.endswith(" BC") else year, month, day)
