"""Fingerprints: what makes a thousand refused rows one cause."""

from hashlib import sha256

from syncline.masking import cause_of, without_values

__all__ = ["fingerprint", "without_values"]


def fingerprint(sqlstate: str, message: str, constraint: str | None) -> str:
    """Return 12 hex digits that are equal for errors which differ in the row's values alone.

    They stand for the SQLSTATE, the constraint and the message's first part (no DETAIL, HINT or CONTEXT), in
    which quoted values and numbers count as equal. Names that Postgres quotes stay: of constraints, columns,
    tables, types. A message of a trigger that gives its values without quotation marks, or one in another
    language that names no constraint, may have more fingerprints than causes, or fewer.
    """
    cause = cause_of(message, "?")
    return sha256("\0".join((sqlstate, constraint or "", cause)).encode()).hexdigest()[:12]
