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
    """Its own: no other table of the graph can use it."""
    text: str
    """What is embedded; a row where it is NULL has no point."""
    payload: Mapping[str, str]
    indexed: tuple[str, ...] = ()
    """Payload fields that people filter by."""


@dataclass(frozen=True, kw_only=True)
class TableMap:
    """One source table and its target table.

    A table with one key column has target columns `id` (UUID of the key) and `key` (the key itself). A table
    with several must have a required reference on each of them, and these are its primary key in the target.
    Every target has `sync_version bigint`: the transaction of the write-db that last changed the row.
    Names that begin with `sync_` are the engine's.
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

    A reference `x` is the UUID `s.ref_x` there. An optional one is NULL while its parent is missing, and no
    expression is asked again when the parent lands."""

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

    def check(self) -> None:
        """Raise ValueError if the parts of this map do not fit together."""
        without_reference = set(self.key) - {reference.column for reference in self.required}
        if not self.identified and without_reference:
            raise ValueError(
                f"{self.name}: key columns {sorted(without_reference)} need a required reference"
            )
        if not self.identified and (self.links or self.vector or self.optional):
            raise ValueError(f"{self.name}: links, vectors and optional references need a key of one column")
        if any(reference.parent == self.name for reference in self.required):
            raise ValueError(f"{self.name}: a reference to the table itself cannot be required")
        optional = {reference.column for reference in self.optional}
        if optional & {*self.key, *self.expressions}:
            raise ValueError(f"{self.name}: an optional reference can be neither a key nor an expression")
        if len({links.table for links in self.links} - optional) < len(self.links):
            raise ValueError(f"{self.name}: each array needs a link table of its own name")
        columns = [column.name for column in self.columns]
        references = [reference.column for reference in self.references]
        self._distinct("target columns", [*(("id", "key") if self.identified else ()), *columns, *references])
        staged = {*self.key, *columns, *references, *(column.name for column in self.source_only)}
        staged |= {links.source for links in self.links}
        self._distinct("staged columns", [*staged, *(f"ref_{column}" for column in references)])
        arrays = {links.source for links in self.links} & {*self.key, *columns, *references}
        if arrays:
            raise ValueError(f"{self.name}: {sorted(arrays)} cannot be links and something else")
        engines = sorted(name for name in {*staged, *self.expressions} if name.startswith("sync_"))
        if engines:
            raise ValueError(f"{self.name}: {engines} begin with sync_ like the engine's own columns")

    def _distinct(self, what: str, names: list[str]) -> None:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{self.name}: {twice} would be two {what} of one name")


@dataclass(frozen=True, kw_only=True)
class SchemaMap:
    """All tables of a graph, parents before children. Raise ValueError if they do not fit together."""

    name: str
    tables: tuple[TableMap, ...]

    def __post_init__(self) -> None:
        """Check what a wrong map would otherwise show only at its first batch, or never."""
        seen: dict[str, TableMap] = {}
        collections: set[str] = set()
        for table in self.tables:
            if table.name in seen:
                raise ValueError(f"{table.name} is declared twice")
            seen[table.name] = table
            parents = {reference.parent for reference in table.references}
            parents |= {links.parent for links in table.links}
            if not parents <= seen.keys():
                raise ValueError(
                    f"{table.name} refers to {sorted(parents - seen.keys())}, not declared before it"
                )
            composite = sorted(parent for parent in parents if not seen[parent].identified)
            if composite:
                raise ValueError(f"{table.name} refers to {composite}, whose key has several columns")
            table.check()
            if table.vector is not None:
                if table.vector.collection in collections:
                    # The same key gives the same id in every table, so their points would be each other's.
                    raise ValueError(f"{table.name}: another table has collection {table.vector.collection}")
                collections.add(table.vector.collection)

    def __iter__(self) -> Iterator[TableMap]:
        return iter(self.tables)

    def __getitem__(self, name: str) -> TableMap:
        return next(table for table in self.tables if table.name == name)
