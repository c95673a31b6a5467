"""Parts of messages: counts, and operators' input: names are quoted, long texts and possible secrets are not.

A message goes into histories, logs and terminals, and a connection string is easily pasted by mistake.
"""

import re
from typing import Final

__all__ = ["counted", "path_shown", "shown"]

_MOST: Final = 100
_PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one: `1 row`, `2,000 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shown(text: object) -> str:
    """Return the text in quotes, or only its length if it is not a possible name."""
    text = str(text)
    if len(text) <= _MOST and text.isprintable() and not {":", "@", "="} & set(text):
        return f"'{text}'"
    return f"(a text of {len(text):,} characters)"


def path_shown(path: str) -> str:
    """Return a dotted path of keys, or "one of its keys" if it cannot be a key of Syncline or a plugin."""
    return path if len(path) <= 2 * _MOST and _PATH.fullmatch(path) else "one of its keys"
