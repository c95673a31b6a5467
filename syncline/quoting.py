"""What a message repeats of what somebody typed: names, and nothing that is long or may be a secret.

A message goes into histories, logs and terminals, and a connection string is soon pasted in the wrong place.
"""

import re
from typing import Final

__all__ = ["path_shown", "shown"]

_MOST: Final = 100
_PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


def shown(text: object) -> str:
    """Return the text in quotes, or how long it is if it cannot be the name of something."""
    text = str(text)
    if len(text) <= _MOST and text.isprintable() and not {":", "@", "="} & set(text):
        return f"'{text}'"
    return f"(a text of {len(text):,} characters)"


def path_shown(path: str) -> str:
    """Return a dotted path of keys, or that it is one, if a key cannot be one of ours or a plugin's."""
    return path if len(path) <= 2 * _MOST and _PATH.fullmatch(path) else "one of its keys"
