"""The built-in map, a knowledge graph: `knowledge_graph.yaml` beside this module."""

from pathlib import Path
from typing import Final

from syncline.maps.document import read_map
from syncline.maps.schema_map import SchemaMap

__all__ = ["KNOWLEDGE_GRAPH"]

_DOCUMENT: Final = Path(__file__).with_suffix(".yaml")

KNOWLEDGE_GRAPH: Final[SchemaMap] = read_map(_DOCUMENT.read_text(encoding="utf-8"), source=_DOCUMENT.name)
