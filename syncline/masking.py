"""Masking of credentials and row values in texts that go into logs and histories."""

import math
import re
from collections.abc import Iterator, Mapping
from traceback import format_tb
from typing import Final

from pydantic import SecretBytes, SecretStr, ValidationError

__all__ = [
    "FROM_CODE",
    "RAISE",
    "cause_of",
    "error_text",
    "masked",
    "masked_message",
    "raised_by_code",
    "server_message",
    "source_function",
    "traceback_text",
    "without_values",
]

MASK: Final = "**********"

_NAMES: Final = (
    r"pass(?:word|wd|phrase)|pwd|secret|token|credentials?|(?:api|access|private)[-_]?key|signature"
)
_SECRET_NAME: Final = re.compile(rf"(?:{_NAMES})$", re.IGNORECASE)
_QUOTED: Final = r"""(?P<quote>\\?["'])(?:\\.|(?!(?P=quote)).)*(?P=quote)"""

_PATTERNS: Final = (
    # Up to the last @ of the word: passwords may contain unescaped @ and /.
    (re.compile(r"(\b[a-z][a-z0-9+.-]{0,30}://[^\s:/@]*):\S*@", re.IGNORECASE), rf"\1:{MASK}@"),
    # And blanks; what begins like a port is none.
    (
        re.compile(
            r"(\b[a-z][a-z0-9+.-]{0,30}://[^\s:/@]*):(?!\d{1,5}(?:[/?#\s,;:)\]'\"]|$))[^\n'\"<>]*@",
            re.IGNORECASE,
        ),
        rf"\1:{MASK}@",
    ),
    # PGPASSWORD=…, sslpassword = '…', "api_key": "…". `--token …` has no separator and is not masked.
    (
        re.compile(
            rf"""((?:{_NAMES})\\?["']?\s*[:=]\s*){_QUOTED}""",
            re.IGNORECASE | re.DOTALL,
        ),
        rf"\1{MASK}",
    ),
    (
        re.compile(
            rf"""((?:{_NAMES})\s*=\s*|(?:{_NAMES})["']?:\s*)(?![\s"'*])[^\s&;,'")\]}}]+""",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    # ?key=… of a URL.
    (re.compile(r"([?&](?:key|sig|auth|code)=)[^\s&;,'\")]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\b(authorization[\"']?\s*[:=]\s*[\"']?)[^\r\n\"',]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\b(bearer\s+)(?!\*)[^\s\"',;]+", re.IGNORECASE), rf"\1{MASK}"),
    # Recognisable credentials: a JSON web token, an API key of an embedding service.
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), MASK),
    (re.compile(r"\bsk-[\w-]{16,}"), MASK),
)

_KINDS: Final = (
    "collation|column|constraint|database|domain|encoding|enum|extension|field|function|index|parameter|policy"
    "|relation|role|schema|sequence|table|trigger|type|view"
)
"""Words after which Postgres quotes a name, not a value of a row."""

VARYING: Final = re.compile(
    # Kept: names, and a type with its limits.
    rf"""(?P<name>\b(?:{_KINDS})[ ]"[^"]*"|\btype[ ][a-z_ ]+\(\d[\d,]*\))"""
    # Postgres does not escape quotes inside a value: the continuation of its sentence marks the end.
    r"""|(?P<last>:[ ]".*)"""
    r"""|(?P<number>\bvalue[ ]".*"(?=[ ]is[ ]out[ ]of[ ]range))"""
    r"""|(?P<plain>"[^"]*(?:"|$)|(?<!\w)'[^']*')"""
    r"""|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"""
    r"""|(?<!\w)[-+]?\d[\w.]*""",
    re.VERBOSE | re.DOTALL,
)

_LONGEST: Final = 2_000
"""Maximum characters of a message that are searched: it may quote megabytes, and the search is slow."""

_AFTER_THE_MESSAGE: Final = re.compile(r"\n(?:DETAIL|HINT|CONTEXT):.*", re.DOTALL)

FROM_CODE: Final = "code of the database raised it, so its text stays there"
"""Replaces the message of a trigger or function: which of its words are row values is unknown."""

_OUR_LOOK: Final = re.compile(r".*\binline_code_block\b.*")
_CORE: Final = re.compile(
    "0[01238]|09|0A|0B|0F|0L|0Z|10|2[0-8]|2B|2D|2F|34|38|39|3B|3D|3F|40|42|44|5[34578]|72|F0|HV|XX"
)
"""SQLSTATE classes of Postgres itself; P0, of PL/pgSQL, is raised by functions."""
RAISE: Final = "exec_stmt_raise"
"""The function in PostgreSQL's source that reports errors of PL/pgSQL's RAISE."""


def masked(value: object) -> object:
    """Return the value with every secret and every password of a URI replaced; containers are copied."""
    if isinstance(value, str):
        return _masked_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # not a JSON number
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, SecretStr | SecretBytes):
        return MASK
    if isinstance(value, Mapping):
        return {str(key): _of_name(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(item) for item in value]
    return masked(str(value))


def _of_name(name: str, value: object) -> object:
    """Return a field's value, completely masked if the field's name is that of a credential."""
    return MASK if isinstance(value, str | bytes) and value and _SECRET_NAME.search(name) else masked(value)


def _masked_text(text: str) -> str:
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def without_values(message: str) -> str:
    """Return a Postgres message without the row values that it quotes. Idempotent.

    For texts that leave the stores. Unquoted values other than numbers are kept; messages of triggers and
    functions never leave the store, see `raised_by_code`.
    """
    return cause_of(message, " …").replace("  …", " …").strip()


def cause_of(message: str, mask: str) -> str:
    """Return the first part of the message with each value masked."""

    def constant(found: re.Match[str]) -> str:
        return found[0] if found["name"] else mask

    return VARYING.sub(constant, _AFTER_THE_MESSAGE.sub("", message)[:_LONGEST])


def raised_by_code(sqlstate: str, *, function: str | None = None) -> bool:
    """Return whether a trigger or function raised the error: P0001, or a code unknown to Postgres.

    `function` is the function in PostgreSQL's source that reports it, if known: RAISE may use any code.
    """
    return function == RAISE or (bool(sqlstate) and not _CORE.match(sqlstate))


def source_function(error: BaseException) -> str | None:
    """Return the function in PostgreSQL's source that reports a driver's error; None for our DO blocks.

    Those have one line of context; an error of a trigger or function has more.
    """
    context = getattr(error, "context", None)
    if isinstance(context, str) and _OUR_LOOK.fullmatch(context):
        return None
    function = getattr(error, "server_source_function", None)
    return function if isinstance(function, str) else None


def masked_message(sqlstate: str, message: str) -> str:
    """Return the part of a Postgres message that may leave the store."""
    return FROM_CODE if raised_by_code(sqlstate) else without_values(message)


def server_message(error: BaseException) -> str:
    """Return the primary message of a driver's error with a SQLSTATE: its DETAIL quotes the row."""
    message = getattr(error, "message", None)
    # Without one it is the driver's: `invalid input for query argument $1: [any value] (expected …)`.
    return message if isinstance(message, str) and message else str(error).partition(": ")[0]


def error_text(error: BaseException) -> str:
    """Return the message of an exception without row values and credentials."""
    original = getattr(error, "orig", None)
    if isinstance(original, BaseException):
        # SQLAlchemy's message contains the statement and its parameters.
        error = original.__cause__ or original
    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(sqlstate, str):
        if raised_by_code(sqlstate, function=source_function(error)):
            return f"[{sqlstate}] {FROM_CODE}"
        return f"[{sqlstate}] {_masked_text(without_values(server_message(error)))}"
    if isinstance(error, ValidationError):
        problems = error.errors(include_input=False, include_url=False)
        return "; ".join(f"{'.'.join(map(str, it['loc']))}: {it['type']}" for it in problems)
    module = type(error).__module__.partition(".")[0]
    if module in ("asyncpg", "sqlalchemy"):
        # `invalid input for query argument $1: 'a value' (expected …)`.
        return _masked_text(without_values(str(error).partition(": ")[0]))
    return _masked_text(str(error))


def traceback_text(error: BaseException) -> str:
    """Return a traceback with its causes, with `error_text` as the message of each exception."""
    return "\n".join(_tracebacks(error, set())).rstrip("\n")


def _tracebacks(error: BaseException, seen: set[int]) -> Iterator[str]:
    if id(error) in seen:
        return
    seen.add(id(error))
    if error.__cause__ is not None:
        yield from _tracebacks(error.__cause__, seen)
        yield "\nThe above exception was the direct cause of the following exception:\n"
    elif error.__context__ is not None and not error.__suppress_context__:
        yield from _tracebacks(error.__context__, seen)
        yield "\nDuring handling of the above exception, another exception occurred:\n"
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):\n" + "".join(format_tb(error.__traceback__)).rstrip("\n")
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    said = error_text(error)
    yield f"{name}: {said}" if said else name
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _tracebacks(inner, seen)
