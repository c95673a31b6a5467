"""Table maps: declare the tables to sync. The engine itself knows no table by name."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from syncline.errors import InputInvalid
from syncline.quoting import shown


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column copied unchanged: same name and Postgres type on both sides."""

    name: str
    type: str = "text"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A TEXT column of the source that holds another row's key; in the target it is that row's UUID.

    While the parent is missing, a required reference parks the row; with an optional one the row is applied
    with NULL and only the reference is parked (so rows that refer to each other do not wait for each other).
    """

    column: str
    parent: str
    """Name of the parent's table map."""
    required: bool
    target: str | None = None
    """The target column, if its name differs from `column`."""
    by: str | None = None
    """A text column of the parent's target that `column` holds instead of the parent's key, such as a content
    hash; of several parents with the same value any one is used. It should be indexed in both stores."""

    @property
    def target_column(self) -> str:
        """The target column with the parent's id."""
        return self.target or self.column


@dataclass(frozen=True, kw_only=True)
class Links:
    """A TEXT[] column of the source that becomes a link table in the target."""

    table: str
    """The link table: exactly the columns `owner` and `member`, together its primary key."""
    source: str
    """The array column; duplicates and order do not matter."""
    owner: str
    member: str
    parent: str
    """Name of the members' table map. A link to a missing member is parked alone."""
    rejected_by: str | None = None
    """Name of a table map each of whose rows suppresses one link: its key is a required reference to the
    owner, then one to the member. That link is not made, or is removed; it returns when the row is deleted.
    """


@dataclass(frozen=True, kw_only=True)
class VectorProjection:
    """What of a target row goes to the vector store. Expressions are SQL over the target row `t`."""

    collection: str
    """The collection; no other table of the graph may use it."""
    text: str
    """The text to embed; a row where it is NULL has no point."""
    payload: Mapping[str, str]
    indexed: tuple[str, ...] = ()
    """Payload fields for filtering."""


@dataclass(frozen=True, kw_only=True)
class Stat:
    """A count kept for each row: aggregates the rows that refer to it."""

    column: str
    counted: str
    """The target or link table whose rows are counted."""
    by: tuple[str, ...]
    """The columns of `counted` that hold the row's id; a row that names it twice counts once."""
    value: str = "count(*)"
    """The aggregate, in SQL over the counted row `c`."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """The denormalised counts of a table, in a separate narrow table: readers join it by id.

    Separate, so that a changed count rewrites neither the row nor its vector. Every row has one stats row,
    deleted with it: `table` has `owner` as primary key, ON DELETE CASCADE, and a default for each count.
    """

    table: str
    owner: str
    columns: tuple[Stat, ...]


@dataclass(frozen=True, kw_only=True)
class TableMap:
    """One source table and its target table.

    A key of required references is the target's primary key, as UUIDs (one row per parent, or per pair of
    parents). Any other key has one column, and the target has `id` (UUID of the key) and `key` (the key
    itself). Every target has `sync_version bigint`, the write-db transaction that last changed the row, and
    `sync_run bigint`, the number of the run that applied it (table `sync_run`). Names that begin with `sync_`
    are reserved for the engine.
    """

    name: str
    """The target table, and the name for references and links."""
    source: str
    key: tuple[str, ...] = ("id",)
    columns: tuple[Column, ...] = ()
    references: tuple[Reference, ...] = ()
    links: tuple[Links, ...] = ()
    vector: VectorProjection | None = None
    stats: Stats | None = None
    present: str = "true"
    """SQL condition over the source row: whether it belongs in the target. NULL means no."""
    source_only: tuple[Column, ...] = ()
    """Columns copied only to the stage, because expressions use them."""
    expressions: Mapping[str, str] = field(default_factory=dict)
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

    def check(self) -> None:
        """Raise ValueError if the parts of this map contradict each other."""
        if not self.key or len(set(self.key)) < len(self.key):
            raise ValueError(
                f"{self.name}: a key has one column or several different ones, not {list(self.key)}"
            )
        without_reference = set(self.key) - {reference.column for reference in self.required}
        if self.identified and len(self.key) > 1:
            raise ValueError(
                f"{self.name}: key columns {sorted(without_reference)} need a required reference"
            )
        if not self.identified and (self.links or self.vector or self.optional or self.stats):
            raise ValueError(
                f"{self.name}: links, vectors, stats and optional references need a key that is no reference"
            )
        by_value = [reference.column for reference in self.references if reference.by]
        if set(by_value) & set(self.key) or any(reference.by for reference in self.optional):
            raise ValueError(
                f"{self.name}: {by_value} can name a parent by value only if required and no key"
            )
        if any(reference.parent == self.name for reference in self.required):
            raise ValueError(f"{self.name}: a reference to the table itself cannot be required")
        optional = {reference.column for reference in self.optional}
        if optional & set(self.key) or {r.target_column for r in self.optional} & set(self.expressions):
            raise ValueError(f"{self.name}: an optional reference can be neither a key nor an expression")
        if len({links.table for links in self.links} - optional) < len(self.links):
            raise ValueError(f"{self.name}: each array needs a link table of its own name")
        columns = [column.name for column in self.columns]
        references = [reference.column for reference in self.references]
        targets = [reference.target_column for reference in self.references]
        self._distinct("target columns", [*(("id", "key") if self.identified else ()), *columns, *targets])
        # A column that names a parent by value may be copied as well.
        columns = [name for name in columns if name not in by_value]
        staged = {*self.key, *columns, *references, *(column.name for column in self.source_only)}
        staged |= {links.source for links in self.links}
        self._distinct("staged columns", [*staged, *(f"ref_{column}" for column in references)])
        twice = sorted({*columns} & {*references})
        if twice:
            raise ValueError(f"{self.name}: {twice} cannot be a column and a reference")
        arrays = {links.source for links in self.links} & {*self.key, *columns, *references}
        if arrays:
            raise ValueError(f"{self.name}: {sorted(arrays)} cannot be links and something else")
        numbers = [stat.column for stat in self.stats.columns] if self.stats else []
        self._distinct("numbers", [*([self.stats.owner] if self.stats else []), *numbers])
        ours = {*staged, *self.expressions, *targets, *numbers, *(self.vector.payload if self.vector else ())}
        engines = sorted(name for name in ours if name.startswith("sync_"))
        if engines:
            raise ValueError(f"{self.name}: {engines} begin with sync_ like the engine's own columns")

        self._check_expressions()

    def _check_expressions(self) -> None:
        """Raise ValueError for an expression on a column that the engine derives, and finds rows by."""
        derived = {"id", "key"} if self.identified else {*self.target_key}
        taken = sorted(derived & self.expressions.keys())
        if taken:
            raise ValueError(
                f"{self.name}: {taken} come from the key, by which deletes and children find the row; "
                "an expression needs a different column"
            )
        for reference in self.required:
            expression = self.expressions.get(reference.target_column)
            if expression is None:
                continue
            named = [other for other in self.references if _names(expression, other)]
            if (
                reference.by is not None
                or not named
                or {(r.parent, r.by, r.required) for r in named} != {(reference.parent, None, True)}
            ):
                raise ValueError(
                    f"{self.name}: {reference.target_column} refers to {reference.parent}; an expression "
                    "on it can only choose among required references to that table by key, as s.ref_<column>"
                )

    def _distinct(self, what: str, names: list[str]) -> None:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{self.name}: {twice} would be two {what} of one name")


def _names(expression: str, reference: Reference) -> bool:
    return re.search(rf"\bref_{re.escape(reference.column)}(?!\w)", expression) is not None


@dataclass(frozen=True, kw_only=True)
class SchemaMap:
    """All tables of a graph, parents before children. Raises ValueError if they contradict each other."""

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
                raise ValueError(f"{table.name} refers to {composite}, which have no id of their own")
            table.check()
            for reference in table.references:
                known = {column.name: column.type for column in seen[reference.parent].columns}
                if reference.by is not None and known.get(reference.by) != "text":
                    raise ValueError(f"{table.name}: {reference.parent} has no text column {reference.by}")
            if table.vector is not None:
                if table.vector.collection in collections:
                    # The same key gives the same id in every table, so two tables would overwrite each
                    # other's points.
                    raise ValueError(f"{table.name}: another table has collection {table.vector.collection}")
                collections.add(table.vector.collection)
        self._check_names()
        for table in self.tables:
            self._check_rejections(table, seen)
            self._check_stats(table)

    def _check_names(self) -> None:
        """Raise ValueError for a table with two uses, or with a reserved name."""
        placed: dict[str, str] = {}
        for table in self.tables:
            places = [(table.name, f"the rows of {table.name}")]
            places += [(links.table, f"the links of {table.name}") for links in table.links]
            if table.stats is not None:
                places.append((table.stats.table, f"the counts of {table.name}"))
            for name, what in places:
                if name in placed:
                    raise ValueError(f"{name} cannot hold {placed[name]} and {what}: use separate tables")
                placed[name] = what
        ours = sorted(
            name for name in {*placed, *(table.source for table in self.tables)} if name.startswith("sync_")
        )
        if ours:
            raise ValueError(f"tables {ours} begin with sync_ like the engine's own")

    def _check_rejections(self, table: TableMap, known: Mapping[str, TableMap]) -> None:
        for links in table.links:
            if links.rejected_by is None:
                continue
            rejections = known.get(links.rejected_by)
            parents = (
                None
                if rejections is None or rejections.identified
                else [r.parent for name in rejections.key for r in rejections.required if r.column == name]
            )
            if parents != [table.name, links.parent]:
                raise ValueError(
                    f"{table.name}: {links.rejected_by} must have a key of two required references, "
                    f"to {table.name} and to {links.parent}"
                )

    def _check_stats(self, table: TableMap) -> None:
        for stat in table.stats.columns if table.stats else ():
            columns = set(self._naming(table, stat.counted))
            if not stat.by or not set(stat.by) <= columns:
                raise ValueError(
                    f"{table.name}: stat {stat.column} counts {stat.counted} by {list(stat.by)}, which "
                    f"refers to {table.name} by {sorted(columns) or 'nothing'}"
                )

    def _naming(self, table: TableMap, counted: str) -> Iterator[str]:
        """Yield the columns of a target or link table that hold ids of `table`."""
        for other in self.tables:
            if other.name == counted:
                yield from (r.target_column for r in other.references if r.parent == table.name)
            for links in other.links:
                if links.table == counted and other.name == table.name:
                    yield links.owner
                if links.table == counted and links.parent == table.name:
                    yield links.member

    def __iter__(self) -> Iterator[TableMap]:
        return iter(self.tables)

    def __getitem__(self, name: str) -> TableMap:
        return next(table for table in self.tables if table.name == name)

    def chosen(self, names: Collection[str] | None) -> Sequence[TableMap]:
        """Return the named tables, all if None, in order; raise InputInvalid for an unknown name."""
        known = {table.name for table in self.tables}
        unknown = sorted(set(names or ()) - known)
        if unknown:
            named = ", ".join(shown(name) for name in unknown[:10])
            raise InputInvalid(f"No table {named} is synced. Known: {', '.join(sorted(known))}.")
        return [table for table in self.tables if names is None or table.name in names]
