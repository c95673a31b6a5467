"""Fingerprints: what makes a thousand refused rows one cause."""

import re
from hashlib import sha256

__all__ = ["fingerprint", "without_values"]

_KINDS = (
    "collation|column|constraint|database|domain|encoding|enum|extension|field|function|index|parameter|policy"
    "|relation|role|schema|sequence|table|trigger|type|view"
)
"""The words after which Postgres quotes a name, not a value of the row."""

_VARYING = re.compile(
    # What stays: names, and a type with its limits.
    rf"""(?P<name>\b(?:{_KINDS})[ ]"[^"]*"|\btype[ ][a-z_ ]+\(\d[\d,]*\))"""
    # Postgres escapes no quotes inside a value: where its sentence goes on tells where the value ends.
    r"""|(?P<last>:[ ]".*)"""
    r"""|(?P<number>\bvalue[ ]".*"(?=[ ]is[ ]out[ ]of[ ]range))"""
    r"""|(?P<plain>"[^"]*(?:"|$)|(?<!\w)'[^']*')"""
    r"""|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"""
    r"""|(?<!\w)[-+]?\d[\w.]*""",
    re.VERBOSE | re.DOTALL,
)

_LONGEST = 2_000
"""Characters of a message that count: it may quote megabytes, and to look for the end of a value is slow."""

_AFTER_THE_MESSAGE = re.compile(r"\n(?:DETAIL|HINT|CONTEXT):.*", re.DOTALL)


def fingerprint(sqlstate: str, message: str, constraint: str | None) -> str:
    """Return 12 hex digits that are equal for errors which differ in the row's values alone.

    They stand for the SQLSTATE, the constraint and the message's first part (no DETAIL, HINT or CONTEXT), in
    which quoted values and numbers count as equal. Names that Postgres quotes stay: of constraints, columns,
    tables, types. A message of a trigger that gives its values without quotation marks, or one in another
    language that names no constraint, may have more fingerprints than causes, or fewer.
    """
    cause = _masked(message, "?")
    return sha256("\0".join((sqlstate, constraint or "", cause)).encode()).hexdigest()[:12]


def without_values(message: str) -> str:
    """Return a message without the values of a row that Postgres quotes in it. Again it changes nothing.

    For what leaves the stores. Values that a trigger gives without quotation marks stay, numbers apart.
    """
    return _masked(message, " …").replace("  …", " …").strip()


def _masked(message: str, mask: str) -> str:
    def constant(found: re.Match[str]) -> str:
        return found[0] if found["name"] else mask

    return _VARYING.sub(constant, _AFTER_THE_MESSAGE.sub("", message)[:_LONGEST])
