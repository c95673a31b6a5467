"""Credentials that travel in HTTP headers: refused early when unsendable, and kept out of every message."""

from pydantic import SecretStr

_HIDDEN = "**********"


def sendable(key: SecretStr) -> bool:
    """Return whether the key can be a header value: printable ASCII without spaces around it.

    HTTP clients quote an illegal header value in their exception, so such a key must never reach them.
    """
    value = key.get_secret_value()
    return bool(value) and value.isascii() and value.isprintable() and value == value.strip()


def redacted(text: str, key: SecretStr | None, *, limit: int = 300) -> str:
    """Return one line of text, shortened to `limit` characters, in which the key does not occur.

    Servers do echo credentials in their error bodies.
    """
    if key is not None and key.get_secret_value():
        text = text.replace(key.get_secret_value(), _HIDDEN)
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
