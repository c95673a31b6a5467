"""Table maps under the name by which the engine's modules and plugins import them (`syncline.maps`)."""

from syncline.maps.schema_map import SchemaMap
from syncline.maps.table_map import Column, Links, Reference, Stat, Stats, TableMap, VectorProjection

__all__ = ["Column", "Links", "Reference", "SchemaMap", "Stat", "Stats", "TableMap", "VectorProjection"]
