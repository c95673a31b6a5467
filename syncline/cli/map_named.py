"""Maps by name: of a file, or in Python."""

from pathlib import Path
from typing import TYPE_CHECKING

from syncline.errors import ConfigurationError

if TYPE_CHECKING:
    from syncline.maps.schema_map import SchemaMap

__all__ = ["map_named"]


def map_named(name: str) -> "tuple[SchemaMap, str | None]":
    """Return a map, and its document if it has one: of a file, or in Python as `module:NAME`.

    Raise MapInvalid, or ConfigurationError if the name leads nowhere.
    """
    path = Path(name)
    if not path.is_file():
        return _in_code(name), None
    from syncline.maps.document import read_map

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{name} cannot be read: {type(error).__name__}.") from None
    return read_map(text, source=name), text


def _in_code(name: str) -> "SchemaMap":
    from importlib import import_module

    from syncline.maps.schema_map import SchemaMap

    module, _, attribute = name.partition(":")
    if not attribute:
        raise ConfigurationError(f"Map {name} leads nowhere: no such file.")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"Map {name} leads nowhere: {error}") from None
    if not isinstance(found, SchemaMap):
        raise ConfigurationError(f"Map {name} is no SchemaMap but a {type(found).__name__}")
    return found
