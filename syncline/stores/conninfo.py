"""Parses connection strings: a URI or libpq's `keyword=value` form, into parameters by name.

The whole string is a secret. Errors quote nothing of it: where a password was split by an unescaped
character, any piece may be part of the password.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

__all__ = ["ConnectionStringInvalid", "Written", "parse_connection_string"]

_SCHEMES: Final = frozenset({"postgres", "postgresql"})
_SCHEME: Final = re.compile(r"^(?P<name>[A-Za-z][A-Za-z0-9]*)(?P<driver>\+[A-Za-z0-9_]+)?://")
_PLACEHOLDER: Final = re.compile(r"\[(?:YOUR|INSERT)[-_ A-Z]*\]|\{your[-_ a-z]*\}|<password>", re.IGNORECASE)
_NAME: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_.]{0,62}$")
_KEYWORD: Final = re.compile(r"^\s*[A-Za-z_][A-Za-z0-9_]*\s*=")
_TOKEN: Final = re.compile(
    r"""\s*(?P<name>[^\s=]+)\s*=\s*(?:'(?P<quoted>(?:[^'\\]|\\.)*)'(?=\s|$)|(?P<bare>(?:[^\s'\\]|\\.)*)(?=\s|$))""",
    re.DOTALL,
)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_ENCODE: Final = (
    "a character of the user name or password that has a meaning in a URI is not percent-encoded: "
    "encode it (# is %23, / is %2F, ? is %3F, @ is %40, : is %3A, % is %25)"
)
_QUOTE: Final = (
    "it is not made of keyword=value pairs: enclose a value with a blank, a quote or a backslash in single "
    "quotes, and write ' and \\ in it as \\' and \\\\"
)


class ConnectionStringInvalid(ValueError):
    """A connection string cannot be used. The message quotes nothing of it."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A connection string's parameters, by libpq's names."""

    parameters: Mapping[str, str]
    nameable: bool
    """Whether unknown parameter names cannot be pieces of a password, and may be quoted."""


def parse_connection_string(text: str) -> Written:
    """Return the parameters of a connection string, or raise ConnectionStringInvalid."""
    text = text.strip()
    if not text:
        raise ConnectionStringInvalid("it is empty; give a connection string, or unset the variable")
    if "\0" in text or not text.isprintable():
        raise ConnectionStringInvalid("it has a control character; was a secret copied with its line end?")
    if text[0] in "\"'" or text[-1] == '"':
        raise ConnectionStringInvalid("it is in quotes; give only the connection string")
    if text.startswith("psql "):
        raise ConnectionStringInvalid("it begins with a command; give only the connection string")
    if text.lower().startswith("jdbc:"):
        raise ConnectionStringInvalid("it is a JDBC URL; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    if _PLACEHOLDER.search(text):
        raise ConnectionStringInvalid("it still has the console's placeholder in place of the password")
    scheme = _SCHEME.match(text)
    if scheme is None:
        return _pairs(text)
    if scheme["name"].lower() not in _SCHEMES:
        raise ConnectionStringInvalid("its scheme is not postgresql:// (or postgres://)")
    return _uri(text[scheme.end() :])


def _uri(rest: str) -> Written:
    if re.search(r"\s", rest):
        raise ConnectionStringInvalid("it has a blank; percent-encode it as %20")
    if "#" in rest:
        raise ConnectionStringInvalid(_ENCODE)
    before, _, query = rest.partition("?")
    authority, slash, path = before.partition("/")
    who, at, where = authority.rpartition("@")
    # An @ of the user part may come after the character that split a password. In a query it is valid in a
    # value (`user=me@server`), never in a name.
    pairs = query.split("&") if query else []
    if "@" in who or "@" in path or any("=" not in pair or "@" in pair.partition("=")[0] for pair in pairs):
        raise ConnectionStringInvalid(
            _ENCODE if "@" in rest else "its query is not made of name=value pairs, joined by &"
        )
    written: dict[str, str] = {}
    if at:
        user, colon, password = who.partition(":")
        written |= {"user": _decoded(user)} if user else {}
        written |= {"password": _decoded(password)} if colon and password else {}
    hosts, ports = zip(*_places(where, maybe_password=not at and "@" in rest), strict=True)
    if any(hosts) or len(hosts) > 1:
        written["host"] = ",".join(hosts)
    if any(ports):
        written["port"] = ",".join(ports)
    if slash and path:
        written["dbname"] = _decoded(path)
    nameable = "@" not in query
    for pair in pairs:
        name, _, value = pair.partition("=")
        _add(written, _decoded(name), _decoded(value), nameable=nameable)
    return Written(parameters=written, nameable=nameable)


def _places(where: str, *, maybe_password: bool) -> Iterator[tuple[str, str]]:
    """Yield each host, decoded, with its port; empty where not given."""
    for place in where.split(","):
        found = re.fullmatch(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]*))?", place)
        if found is None:
            raise ConnectionStringInvalid(
                _ENCODE
                if maybe_password
                else "its host and port cannot be read (a port is a number, an IPv6 address stands in [ ]); "
                f"or {_ENCODE}"
            )
        host = found["host"]
        yield host[1:-1] if host.startswith("[") else _decoded(host), found["port"] or ""


def _pairs(text: str) -> Written:
    if _KEYWORD.match(text) is None:
        raise ConnectionStringInvalid(
            "it is not a connection string: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or host=… "
            "dbname=… user=…"
        )
    if ";" in text and re.match(r"(?i)\s*(?:server|host|user id|data source)\s*=[^;]*;", text):
        raise ConnectionStringInvalid(
            "it is an ADO.NET string; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        )
    written: dict[str, str] = {}
    at, nameable = 0, True
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            raise ConnectionStringInvalid(_QUOTE)
        at = found.end()
        value = found["bare"] if found["quoted"] is None else found["quoted"]
        _add(written, found["name"], _ESCAPED.sub(r"\1", value), nameable=nameable)
        # What follows an unquoted password may be the rest of it.
        if found["name"] in ("password", "sslpassword") and found["quoted"] is None:
            nameable = False
    return Written(parameters=written, nameable=nameable)


def _add(written: dict[str, str], name: str, value: str, *, nameable: bool) -> None:
    if name in written:
        which = f"'{name}'" if nameable and _NAME.match(name) else "a parameter"
        raise ConnectionStringInvalid(f"{which} is given twice")
    written[name] = value


def _decoded(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ConnectionStringInvalid("it has a % without two hexadecimal digits after it: write % as %25")
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise ConnectionStringInvalid("its percent-encoded bytes are not UTF-8") from None
    if "\0" in decoded:
        raise ConnectionStringInvalid("it has %00, which is not allowed")
    return decoded
