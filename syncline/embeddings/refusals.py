"""Refusals of an embedding service: what its error body says, without the texts that it quotes."""

import json
from collections.abc import Sequence
from typing import Final

from pydantic import JsonValue
from pydantic_core import from_json

__all__ = ["explanation", "without"]

_SAYING: Final = ("error", "message", "detail", "msg")
_TELLING: Final = 4
_PART: Final = 16
"""Characters in a row that no one writes by chance: a message that shares them quotes the text."""
_LONGEST_BODY: Final = 100_000
"""Longer than any message shown, so that a key is not cut in half before it is redacted."""
_LONGEST_MESSAGE: Final = 2_000


def explanation(content: bytes) -> str:
    """Return the message of an error body, in OpenAI's shape or a similar one.

    Never the body as a whole: many services quote the request in it.
    """
    try:
        body: JsonValue = from_json(content)
    except ValueError:
        return content[:_LONGEST_BODY].decode(errors="replace")
    while isinstance(body, dict):
        body = next((body[key] for key in _SAYING if key in body), None)
        # A list of problems, as FastAPI sends: take the first.
        if isinstance(body, list):
            body = next((problem for problem in body if isinstance(problem, dict)), None)
    return body if isinstance(body, str) and body else "no message"


def without(texts: Sequence[str], message: str) -> str:
    """Return the message without the texts that it quotes, or parts of them."""
    for text in sorted(texts, key=len, reverse=True):
        for quoted in (text, json.dumps(text)[1:-1]):
            # Anything shorter is a word of the message itself, or reveals nothing.
            if len(quoted) >= _TELLING:
                message = message.replace(quoted, "…")
    message = message[:_LONGEST_MESSAGE]
    sent = "\0".join([*texts, *(json.dumps(text)[1:-1] for text in texts)])
    kept: list[str] = []
    place = 0
    while place < len(message):
        if len(message) - place >= _PART and message[place : place + _PART] in sent:
            end = place + _PART
            while end < len(message) and message[place : end + 1] in sent:
                end += 1
            kept.append("…")
            place = end
        else:
            kept.append(message[place])
            place += 1
    return "".join(kept)
