"""Maps by name: of a file, in Python, or stored in the control plane."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from syncline.cli.operators import ask
from syncline.errors import ConfigurationError

if TYPE_CHECKING:
    from syncline.control.maps import MapDocument, MapOptions, StoredMap
    from syncline.maps.schema_map import SchemaMap

__all__ = ["map_named", "read_file", "stored_document", "stored_map", "version_label"]


def map_named(name: str) -> "tuple[SchemaMap, str | None]":
    """Return a map, and its document if it has one: of a file, or in Python as `module:NAME`.

    Raise MapInvalid, or ConfigurationError if the name leads nowhere.
    """
    if not Path(name).is_file():
        return _in_code(name), None
    from syncline.maps.document import read_map

    text = read_file(name)
    return read_map(text, source=name), text


def read_file(file: str) -> str:
    """Return the text of a file, or of standard input for `-`; raise ConfigurationError if there is none."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{file} cannot be read: {problem}") from None


def stored_document(name: str, version: int | None = None) -> "MapDocument":
    """Return a version of a stored map, the newest if none is given, as a worker answers."""
    from syncline.control.maps import MapDocument
    from syncline.messages.operator import ShowMapInput

    return ask(ShowMapInput(name=name, version=version), MapDocument)


def stored_map(options: "MapOptions") -> "SchemaMap":
    """Return the stored map that options of the built-in provider name, as a worker answers."""
    from syncline.maps.document import read_map

    stored = stored_document(options.map or "", options.map_version)
    return read_map(stored.document, source=version_label(stored))


def version_label(stored: "StoredMap") -> str:
    """Return what a version of a stored map is called."""
    return f"{stored.name} version {stored.version}"


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
