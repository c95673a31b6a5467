"""JSON Schema of a map document: for editors, and for whoever writes documents by a program."""

import ast
import inspect
import json
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from syncline.maps import columns, document, ids, table_map, tenants, unreadable
from syncline.maps.document import MapDocument
from syncline.maps.forms import KEYED_BY

__all__ = ["ID", "map_schema", "map_schema_text"]

ID: Final = f"urn:syncline:map:{document.VERSION}"


def map_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a map document."""
    schema = TypeAdapter(MapDocument).json_schema(mode="validation")
    described: dict[str, dict[str, str]] = {}
    for module in (table_map, columns, ids, tenants, unreadable, document):
        described |= _descriptions(module)
    definitions: dict[str, Any] = schema.get("$defs", {})
    for name, each in [(MapDocument.__name__, schema), *definitions.items()]:
        for field, value in each.get("properties", {}).items():
            value.pop("title", None)
            if field in described.get(name, {}):
                value["description"] = described[name][field]
    _add_mappings(schema, definitions)
    schema.pop("title", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": "Syncline map",
        **schema,
    }


def map_schema_text() -> str:
    """Return the JSON Schema as it is published."""
    return json.dumps(map_schema(), indent=2) + "\n"


def _add_mappings(part: Any, definitions: dict[str, Any]) -> None:
    """Replace each list that is marked as keyed by a choice of mapping and list."""
    if isinstance(part, list):
        for item in part:
            _add_mappings(item, definitions)
    if not isinstance(part, dict):
        return
    for value in list(part.values()):
        _add_mappings(value, definitions)
    keyed = part.pop(KEYED_BY, None)
    if keyed is None:
        return
    by, short = keyed["by"], keyed["short"]
    items = part.pop("items")
    del part["type"]
    whole = definitions[items["$ref"].rpartition("/")[2]]
    name = f"{whole.get('title', '')}Entry"
    definitions[name] = {
        **whole,
        "title": name,
        "properties": {field: each for field, each in whole["properties"].items() if field != by},
        "required": [field for field in whole.get("required", ()) if field != by],
    }
    entries: list[dict[str, Any]] = [{"$ref": f"#/$defs/{name}"}]
    listed = [items]
    if short is not None:
        described = whole["properties"][short].get("description", "")
        entries += [{"type": "string", "description": described}]
        listed += [{"type": "string", "description": f"The {by} alone."}]
    if not definitions[name]["required"]:
        entries += [{"type": "null"}]
    part["anyOf"] = [
        {"type": "object", "additionalProperties": entries[0] if len(entries) == 1 else {"anyOf": entries}},
        {"type": "array", "items": items if len(listed) == 1 else {"anyOf": listed}},
    ]


def _descriptions(module: Any) -> dict[str, dict[str, str]]:
    """Return class -> field -> docstring, of the dataclasses of a module."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        for declared, text in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(declared, ast.AnnAssign)
                and isinstance(declared.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                said = " ".join(inspect.cleandoc(text.value.value).split())
                found.setdefault(node.name, {})[declared.target.id] = said
    return found


if __name__ == "__main__":
    import sys

    sys.stdout.write(map_schema_text())
