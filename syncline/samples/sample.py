"""What a sample is: rows for the tables of a write-db, read one after the other."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

Value = str | bool | int | float | list[str] | None
"""What a cell holds; a jsonb cell holds JSON text, a text[] cell a list."""
Row = tuple[Value, ...]


class SampleTable(NamedTuple):
    """Rows for one table of the write-db; columns that are not named keep their defaults."""

    table: str
    columns: tuple[str, ...]
    rows: Iterator[Row]


COLUMNS = {
    "write_raw_sources": (
        "id", "uri", "title", "content_type", "content_hash", "provider_id", "provider_metadata",
        "fetch_status",
    ),
    "write_facts": ("id", "content", "fact_type", "dedup_status"),
    "write_fact_sources": ("fact_id", "raw_source_id", "context_snippet", "attribution"),
    "write_nodes": ("id", "concept", "node_type", "definition", "parent_id", "fact_ids", "metadata"),
    "write_edges": (
        "id", "source_node_id", "target_node_id", "relationship_type", "directed", "justification",
        "fact_ids", "metadata",
    ),
}  # fmt: skip
"""What the samples here fill, in the order of their rows."""


def sample_table(table: str, rows: Iterator[Row]) -> SampleTable:
    """Return rows that have the columns which `COLUMNS` names for the table."""
    return SampleTable(table, COLUMNS[table], rows)


class Sample(Protocol):
    """A data set that can be loaded again and again: the same rows in the same order each time."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def tables(self) -> Iterable[SampleTable]:
        """Return fresh iterators over all rows, or raise SampleInvalid if the data is not there.

        Rows are read while they are loaded; reading them raises SampleInvalid where the data is malformed.
        """
        ...
