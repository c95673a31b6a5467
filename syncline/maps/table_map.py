"""Table maps: what of one source table goes where. The engine itself knows no table by name.

The same classes are the model of a document: `syncline.maps.document` reads them from YAML, and the docstring
of each field is its description in the JSON Schema.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Final

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from syncline.maps.forms import Keyed, Name, Names, Sql

__all__ = ["STRICT", "Column", "Links", "Reference", "Stat", "Stats", "TableMap", "VectorProjection"]

STRICT: Final = ConfigDict(extra="forbid", hide_input_in_errors=True, defer_build=True)
"""Unknown fields are refused, and no value is in a message: a password is easily pasted by mistake."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Column:
    """A column copied unchanged: same name and Postgres type on both sides."""

    name: Name
    """The column, in both tables."""
    type: Sql = "text"
    """Its Postgres type, as `format_type` or a cast spells it."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Reference:
    """A TEXT column of the source that holds another row's key; in the target it is that row's UUID.

    While the parent is missing, a required reference parks the row; with an optional one the row is applied
    with NULL and only the reference is parked (so rows that refer to each other do not wait for each other).
    """

    column: Name
    """The source column."""
    parent: Name
    """Name of the parent's table map."""
    required: Annotated[bool, Field(strict=True)] = True
    """Whether a row waits for its parent. If not, the row is applied with NULL until the parent is there."""
    target: Name | None = None
    """The target column, if its name differs from `column`."""
    by: Name | None = None
    """A text column of the parent's target that `column` holds instead of the parent's key, such as a content
    hash; of several parents with the same value any one is used. It should be indexed in both stores."""

    @property
    def target_column(self) -> str:
        """The target column with the parent's id."""
        return self.target or self.column


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Links:
    """A TEXT[] column of the source that becomes a link table in the target."""

    table: Name
    """The link table: exactly the columns `owner` and `member`, together its primary key."""
    source: Name
    """The array column; duplicates and order do not matter."""
    owner: Name
    """The column of the link table with the id of the row that has the array."""
    member: Name
    """The column of the link table with the id of a row that the array names."""
    parent: Name
    """Name of the members' table map. A link to a missing member is parked alone."""
    rejected_by: Name | None = None
    """Name of a table map each of whose rows suppresses one link: its key is a required reference to the
    owner, then one to the member. That link is not made, or is removed; it returns when the row is deleted.
    """


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VectorProjection:
    """What of a target row goes to the vector store. Expressions are SQL over the target row `t`."""

    collection: Name
    """The collection; no other table of the graph may use it."""
    text: Sql
    """The text to embed; a row where it is NULL has no point."""
    payload: Mapping[Name, Sql]
    """Payload field -> SQL over the target row `t`."""
    indexed: Names = ()
    """Payload fields for filtering."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Stat:
    """A count kept for each row: aggregates the rows that refer to it."""

    column: Name
    """The column of the stats table."""
    counted: Name
    """The target or link table whose rows are counted."""
    by: Names
    """The columns of `counted` that hold the row's id; a row that names it twice counts once."""
    value: Sql = "count(*)"
    """The aggregate, in SQL over the counted row `c`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Stats:
    """The denormalised counts of a table, in a separate narrow table: readers join it by id.

    Separate, so that a changed count rewrites neither the row nor its vector. Every row has one stats row,
    deleted with it: `table` has `owner` as primary key, ON DELETE CASCADE, and a default for each count.
    """

    table: Name
    """The stats table."""
    owner: Name
    """Its column with the row's id, its primary key."""
    columns: Annotated[tuple[Stat, ...], Keyed("column")]
    """The counts."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TableMap:
    """One source table and its target table.

    A key of required references is the target's primary key, as UUIDs (one row per parent, or per pair of
    parents). Any other key has one column, and the target has `id` (UUID of the key) and `key` (the key
    itself). Every target has `sync_version bigint`, the write-db transaction that last changed the row, and
    `sync_run bigint`, the number of the run that applied it (table `sync_run`). Names that begin with `sync_`
    are reserved for the engine.
    """

    name: Name
    """The target table, and the name for references and links."""
    source: Name
    """The table of the write-db."""
    key: Names = ("id",)
    """The source columns that identify a row."""
    columns: Annotated[tuple[Column, ...], Keyed("name", short="type")] = ()
    """The columns that are copied."""
    references: Annotated[tuple[Reference, ...], Keyed("column", short="parent")] = ()
    """The columns that name a row of another table."""
    links: Annotated[tuple[Links, ...], Keyed("table")] = ()
    """The arrays that become link tables."""
    vector: VectorProjection | None = None
    """What goes to the vector store."""
    stats: Stats | None = None
    """The counts that are kept for each row."""
    present: Sql = "true"
    """SQL condition over the source row: whether it belongs in the target. NULL means no."""
    source_only: Annotated[tuple[Column, ...], Keyed("name", short="type")] = ()
    """Columns copied only to the stage, because expressions use them."""
    expressions: Mapping[Name, Sql] = field(default_factory=dict)
    """Target column -> SQL over the staged row `s`, where it differs from the plain column. Not allowed for
    what the engine derives and finds rows by: `id`, `key`, columns of a key of references. On a required
    reference it can choose among references to the same parent.

    A reference `x` is available as the UUID `s.ref_x`. An optional one is NULL while its parent is missing,
    and expressions are not evaluated again when the parent arrives."""

    @property
    def required(self) -> tuple[Reference, ...]:
        """The references without which a row cannot be applied."""
        return tuple(reference for reference in self.references if reference.required)

    @property
    def optional(self) -> tuple[Reference, ...]:
        """The references that may be set later."""
        return tuple(reference for reference in self.references if not reference.required)

    @property
    def parents(self) -> tuple[str, ...]:
        """Names of the table maps that references and links name, each once, in their order."""
        named = [reference.parent for reference in self.references] + [links.parent for links in self.links]
        return tuple(dict.fromkeys(named))

    @property
    def identified(self) -> bool:
        """Whether the target has an `id` column."""
        return not set(self.key) <= {reference.column for reference in self.required}

    @property
    def target_key(self) -> tuple[str, ...]:
        """The target's primary key."""
        if self.identified:
            return ("id",)
        columns = {reference.column: reference.target_column for reference in self.references}
        return tuple(columns[name] for name in self.key)
