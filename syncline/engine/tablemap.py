"""Table maps: what the engine is told about the tables it moves. The engine itself knows no table by name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column that travels unchanged: the same name and Postgres type on both sides."""

    name: str
    type: str = "text"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A TEXT column of the source that names another row's key, and is that row's UUID in the target.

    While the parent is missing, a required reference parks the row; an optional one lets the row land with
    NULL and parks the reference alone (so that rows which refer to each other cannot wait for each other).
    """

    column: str
    parent: str
    """Name of the table map that the parent belongs to."""
    required: bool


@dataclass(frozen=True, kw_only=True)
class Links:
    """A TEXT[] column of the source that is a link table in the target."""

    table: str
    """The link table: exactly the two columns `owner` and `member`, both its primary key."""
    source: str
    """The array column; duplicates and order do not matter."""
    owner: str
    member: str
    parent: str
    """Name of the table map that the members belong to. A link to a missing member is parked alone."""


@dataclass(frozen=True, kw_only=True)
class VectorProjection:
    """What of a target row goes to the vector store. Expressions are SQL over the target row `t`."""

    collection: str
    text: str
    payload: Mapping[str, str]
    indexed: tuple[str, ...] = ()
    """Payload fields that people filter by."""


@dataclass(frozen=True, kw_only=True)
class TableMap:
    """One source table and its target table.

    A table with one key column has target columns `id` (UUID of the key) and `key` (the key itself). A table
    with several must have a required reference on each of them, and these are its primary key in the target.
    Every target has `sync_version bigint`: the transaction of the write-db that last changed the row.
    """

    name: str
    """The target table, and the name that references and links use."""
    source: str
    key: tuple[str, ...] = ("id",)
    columns: tuple[Column, ...] = ()
    references: tuple[Reference, ...] = ()
    links: tuple[Links, ...] = ()
    vector: VectorProjection | None = None
    present: str = "true"
    """SQL condition over the source row: whether it belongs in the target at all."""
    source_only: tuple[Column, ...] = ()
    """Columns that travel to the stage because expressions use them, and no further."""
    expressions: Mapping[str, str] = field(default_factory=dict)
    """Target column -> SQL over the staged row `s`, where it differs from the plain column.

    A reference `x` is the UUID `s.ref_x` there."""

    @property
    def required(self) -> tuple[Reference, ...]:
        """The references without which a row cannot land."""
        return tuple(reference for reference in self.references if reference.required)

    @property
    def optional(self) -> tuple[Reference, ...]:
        """The references that may follow later."""
        return tuple(reference for reference in self.references if not reference.required)

    @property
    def identified(self) -> bool:
        """Whether the target has an `id` of its own."""
        return len(self.key) == 1


@dataclass(frozen=True, kw_only=True)
class SchemaMap:
    """All tables of a graph, parents before children. Raise ValueError if they do not fit together."""

    name: str
    tables: tuple[TableMap, ...]

    def __post_init__(self) -> None:
        """Check what a wrong map would otherwise show only at its first batch."""
        seen: set[str] = set()
        for table in self.tables:
            seen.add(table.name)
            parents = {reference.parent for reference in table.references}
            parents |= {links.parent for links in table.links}
            if not parents <= seen:
                raise ValueError(f"{table.name} refers to {sorted(parents - seen)}, not declared before it")
            composite = set(table.key) - {reference.column for reference in table.required}
            if not table.identified and composite:
                raise ValueError(f"{table.name}: key columns {sorted(composite)} need a required reference")
            if not table.identified and (table.links or table.vector):
                raise ValueError(f"{table.name}: links and vectors need a key of one column")
            if any(reference.required and reference.parent == table.name for reference in table.references):
                raise ValueError(f"{table.name}: a reference to the table itself cannot be required")

    def __iter__(self) -> Iterator[TableMap]:
        return iter(self.tables)

    def __getitem__(self, name: str) -> TableMap:
        return next(table for table in self.tables if table.name == name)
