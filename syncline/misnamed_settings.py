"""Variables of the environment that look like a setting and are none: a slip of the pen, not an answer."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

from syncline.logs import get_log
from syncline.settings import Settings

__all__ = ["misnamed", "warn_of_misnamed"]

_PREFIX: Final = "SYNCLINE_"
_LIKE: Final = 0.85
"""From here on a name is taken for another one: a letter or two of a word. Others may be a plugin's own."""


def misnamed(variables: Iterable[str]) -> Mapping[str, str]:
    """Return each variable that no setting has but that is nearly the name of one, and that name."""
    settings = [f"{_PREFIX}{field.upper()}" for field in Settings.model_fields]
    found: dict[str, str] = {}
    for variable in sorted(variables):
        name = variable.upper()
        if name.startswith(_PREFIX) and name not in settings:
            meant = difflib.get_close_matches(name, settings, n=1, cutoff=_LIKE)
            if meant:
                found[variable] = meant[0]
    return found


def warn_of_misnamed(variables: Iterable[str]) -> None:
    """Log a warning for each variable that is `misnamed`. Values are not read."""
    for variable, meant in misnamed(variables).items():
        get_log().warning("variable is no setting, and is not read", variable=variable, fix=f"{meant}?")
