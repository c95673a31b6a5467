"""Table maps: what of one source table goes where. The engine itself knows no table by name.

The same classes are the model of a document: `syncline.maps.document` reads them from YAML, and the docstring
of each field is its description in the JSON Schema. One module because they are one document's parts.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Final

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from syncline.maps.columns import Column
from syncline.maps.forms import STRICT, Keyed, Name, Names, Sql
from syncline.maps.ids import Id, IdForm, IdRule
from syncline.maps.key_types import JSON_ARRAY, TEXT, KeyType, Kind, element_type, key_type
from syncline.maps.tenants import Tenant, TenantForm
from syncline.maps.unreadable import UnreadableForm

__all__ = [
    "Column",
    "Id",
    "IdRule",
    "Links",
    "Ownership",
    "Reference",
    "Stat",
    "Stats",
    "TableMap",
    "VectorProjection",
]


def _stub(value: object) -> object:
    return ({} if value else None) if isinstance(value, bool) else value


Stub = Annotated[
    Mapping[Name, Sql] | None,
    BeforeValidator(_stub, json_schema_input_type=Mapping[Name, Sql] | bool | None),
]
"""Columns of a stub; `true` stands for none."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Reference:
    """A column of the source that holds another row's key; in the target it is that row's id.

    While the parent is missing, a required reference parks the row; with an optional one the row is applied
    with NULL and only the reference is parked (so rows that refer to each other do not wait for each other).
    """

    column: Name
    """The source column; with `columns`, a name for the reference."""
    parent: Name
    """Name of the parent's table map."""
    required: Annotated[bool, Field(strict=True)] = True
    """Whether a row waits for its parent. If not, the row is applied with NULL until the parent is there."""
    target: Name | None = None
    """The target column, if its name differs from `column`."""
    by: Name | None = None
    """A text column of the parent's target that `column` holds instead of the parent's key, such as a content
    hash; of several parents with the same value any one is used. It should be indexed in both stores."""
    columns: Names = ()
    """The source columns that hold the parent's key together, if that has several, in its order. `target` is
    the column for the parent's id; if its key is the primary key of its target, the row has its columns."""
    unreadable: UnreadableForm = None
    """What a text names that is no uuid, or number, as keys of the parent are. If left out, its row becomes a
    dead letter."""
    stub: Stub = None
    """While the parent is missing, a stub of it is made, to which the row refers: it does not wait. `true` or
    column of the parent's `columns` -> SQL over this staged row `s`; others are NULL, or what the database
    says. The parent takes it over when it comes; it leaves with the last row that refers to it."""

    @property
    def target_column(self) -> str:
        """The target column with the parent's id."""
        return self.target or self.column

    @property
    def fills(self) -> bool:
        """Whether the target has a column with the parent's id."""
        return self.target is not None or not self.columns

    @property
    def sources(self) -> tuple[str, ...]:
        """The source columns."""
        return self.columns or (self.column,)


class Ownership(StrEnum):
    """Whose links a link table has."""

    ALL = "all"
    OURS = "ours"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Links:
    """An array of the source whose elements are keys; it becomes a link table in the target.

    An array of texts, or of another type (`types` of the table map); or a JSON array, of type jsonb.
    """

    table: Name
    """The link table. Its columns `owner` and `member` are unique together; it may have a primary key of its
    own, and further columns."""
    source: Name
    """The array column; a key that it names twice is one link. Only `position` follows its order."""
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
    columns: Mapping[Name, Sql] = field(default_factory=dict)
    """Further columns of the link table -> SQL over the owner's target row `t`, such as a constant or now().
    They are written when a link is made, and are its readers' from then on: never changed, never compared."""
    position: Name | None = None
    """An integer column of the link table that has the member's place in the array: from 1, of a key that is
    there twice the first one, NULLs and missing members counted. It follows the array."""
    unreadable: UnreadableForm = None
    """What an element names that is no uuid or number, as keys of the parent are; without it, its row becomes
    a dead letter. `none`: nothing, like NULL."""
    owned: Ownership = Ownership.ALL
    """`all`: an owner's links are exactly what its array names. `ours`: links that others made stay, and only
    those leave that the engine has made; which these are is kept in `sync_link`."""

    @property
    def bare(self) -> bool:
        """Whether a link is its two ends, and every link follows from an array."""
        return not self.columns and self.position is None and self.owned is Ownership.ALL


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

    @property
    def of_rows(self) -> bool:
        """Whether it is the number of rows, whatever they contain."""
        return self.value == "count(*)"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Stats:
    """The denormalised counts of a table: in a separate narrow table, or in the row itself.

    Separate, so that a changed count does not rewrite the row: readers join it by id. Every row has one stats
    row, deleted with it: `table` has `owner` as primary key, ON DELETE CASCADE, and a default for each count.
    A changed count writes no point, wherever it stands.
    """

    table: Name | None = None
    """The stats table; none: the counts are columns of the row."""
    owner: Name | None = None
    """The stats table's column with the row's id, its primary key."""
    columns: Annotated[tuple[Stat, ...], Keyed("column")]
    """The counts."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TableMap:
    """One source table and its target table.

    A key of one column has an `id` in the target, by default the hash of the key, and the key itself in
    `key`. A key of required references, or of several columns, is the target's primary key: a column each,
    references as their parents' ids. `id` declares another primary key. Names that begin with `sync_` are
    reserved for the engine.
    """

    name: Name
    """The target table, and the name for references and links."""
    source: Name
    """The table of the write-db."""
    key: Names = ("id",)
    """The source columns that identify a row: NOT NULL, and unique together."""
    id: IdForm = None
    """How the target's primary key is made from the key."""
    types: Mapping[Name, Sql] = field(default_factory=dict)
    """Source column -> its type, for columns of the key, references and link arrays that are no text (arrays:
    text[]). Keys may be text, varchar, uuid, smallint, integer, bigint, numeric, date, timestamp, timestamptz
    and bytea."""
    tenant: TenantForm = None
    """The column that says whose a row is, where graphs share the source and each has one tenant's rows; in
    place of that of the map. `none`: all graphs have all of its rows."""
    stamped: Annotated[bool, Field(strict=True)] = True
    """Whether the target has `sync_version bigint`, the write-db transaction that last changed the row, and
    `sync_run bigint`, the number of the run that applied it (table `sync_run`). Only `explain` reads them."""
    columns: Annotated[tuple[Column, ...], Keyed("name", short="type")] = ()
    """The columns: copied unchanged, renamed, cast or made by SQL."""
    references: Annotated[tuple[Reference, ...], Keyed("column", short="parent")] = ()
    """The columns that name a row of another table."""
    links: Annotated[tuple[Links, ...], Keyed("table")] = ()
    """The arrays that become link tables."""
    vector: VectorProjection | None = None
    """What goes to the vector store."""
    stats: Stats | None = None
    """The counts that are kept for each row."""
    into: Name | None = None
    """Another table map, into whose rows this one writes its columns: it has no rows of its own there. Its
    key is the other one's key, and names the row. While that is missing, the source row is parked."""
    otherwise: Mapping[Name, Sql] = field(default_factory=dict)
    """With `into`: column -> its value in rows without a source row here: an SQL constant, else NULL."""
    present: Sql = "true"
    """SQL condition over the source row: whether it belongs in the target. NULL means no."""
    marked: Mapping[Name, Sql] = field(default_factory=dict)
    """Column of `columns` -> SQL over the target row `t`: a row that is deleted at the source, or no longer
    `present`, stays in the target with these values, such as now(). When it returns, it has those of
    `columns` again. Without it, such a row is removed."""
    source_only: Annotated[tuple[Column, ...], Keyed("name", short="type")] = ()
    """Columns copied only to the stage, because expressions use them."""
    ignored: Names = ()
    """Source columns that are left alone on purpose: nobody is asked about them when they are added."""
    expressions: Mapping[Name, Sql] = field(default_factory=dict)
    """Target column -> SQL over the staged row `s`, where it differs from the plain column. Not allowed for
    what the engine derives and finds rows by: `id`, `key`, columns of a key of references. On a required
    reference it can choose among references to the same parent.

    Key columns and references are text here, whatever their type (docs/maps.md). A reference `x` is available
    as its parent's id, `s.ref_x`. An optional one is NULL while its parent is missing,
    and expressions are not evaluated again when the parent arrives."""

    @property
    def target(self) -> str:
        """The target table."""
        return self.into or self.name

    @cached_property
    def copied(self) -> dict[str, str]:
        """The columns that are copied unchanged -> type."""
        return {column.name: column.type for column in self.columns if column.copied}

    @property
    def texts(self) -> dict[str, str]:
        """The text columns of the target that are texts of the source as they are -> source column."""
        found = [column for column in self.columns if column.value is None and column.type == "text"]
        staged = self.staged | {name: type_.name for name, type_ in self.key_texts.items()}
        return {column.name: column.sources[0] for column in found if staged[column.sources[0]] == "text"}

    @property
    def staged(self) -> dict[str, str]:
        """The source columns that travel for `columns` and expressions -> type."""
        found: dict[str, str] = {}
        columns = (*self.columns, *self.source_only)
        for given in (True, False):
            for column in columns:
                for name, type_ in column.typed(given=given).items():
                    found.setdefault(name, type_)
        return found

    @property
    def computed(self) -> dict[str, str]:
        """The target columns whose value SQL of the map makes -> that SQL, over the staged row `s`."""
        made = {column.name: column.value for column in self.columns if column.value is not None}
        return made | dict(self.expressions)

    @property
    def of_tenant(self) -> Tenant | None:
        """The tenant, if its rows have one."""
        return self.tenant if isinstance(self.tenant, Tenant) else None

    @property
    def tenant_column(self) -> str | None:
        """The source column that says whose a row is, if its rows have a tenant."""
        return None if self.of_tenant is None else self.of_tenant.column

    @property
    def required(self) -> tuple[Reference, ...]:
        """The references without which a row cannot be applied."""
        return tuple(reference for reference in self.references if reference.required)

    @property
    def optional(self) -> tuple[Reference, ...]:
        """The references that may be set later."""
        return tuple(reference for reference in self.references if not reference.required)

    @property
    def filled(self) -> tuple[Reference, ...]:
        """The references that have a column of their own in the target."""
        return tuple(reference for reference in self.references if reference.fills)

    def holding(self, column: str, part: Reference | None) -> str | None:
        """Return the target column with a source column's value; None if no column has it in each row.

        `part`: the reference that is this part of the parent's key; then its parent's id is held.
        """
        for reference in self.required:
            if reference.column == column and reference.fills and part is not None:
                return reference.target_column if reference.parent == part.parent else None
        if part is not None:
            return None
        if column in self.own_parts:
            return column
        if self.identified and self.key == (column,):
            return self.key_column or (self.id_column if self.id_rule is IdRule.SAME else None)
        plain = (each for each in self.columns if each.value is None and each.sources == (column,))
        return next((each.name for each in plain if each.name not in self.expressions), None)

    def held(self, reference: Reference, parent: "TableMap") -> tuple[str, ...]:
        """Return the target columns that name the row of a parent without an id together."""
        parts = [parent.parent_part(name) for name in parent.key]
        found = [self.holding(name, part) for name, part in zip(reference.columns, parts, strict=True)]
        return tuple(name for name in found if name is not None)

    @property
    def parents(self) -> tuple[str, ...]:
        """Names of the table maps that references and links name, each once, in their order."""
        named = [reference.parent for reference in self.references] + [links.parent for links in self.links]
        return tuple(dict.fromkeys(named))

    @property
    def stats_place(self) -> tuple[str, str]:
        """The table in which the counts stand, and its column with the row's id."""
        if self.stats is None or self.stats.table is None:
            return self.name, self.id_column
        return self.stats.table, self.stats.owner or self.id_column

    @property
    def counters(self) -> tuple[Stat, ...]:
        """The counts that stand in the row itself."""
        return self.stats.columns if self.stats is not None and self.stats.table is None else ()

    @property
    def identified(self) -> bool:
        """Whether the target has an id column of its own."""
        if self.id is None or self.id.rule is IdRule.SAME:
            return len(self.key) == 1 and self.parent_part(self.key[0]) is None
        return True

    @property
    def target_key(self) -> tuple[str, ...]:
        """The target's primary key."""
        if self.identified:
            return (self.id_column,)
        columns = {reference.column: reference.target_column for reference in self.references}
        return tuple(columns.get(name, name) for name in self.key)

    @property
    def id_rule(self) -> IdRule:
        """How the id of an `identified` table is made."""
        return IdRule.HASH if self.id is None else self.id.rule

    @property
    def id_column(self) -> str:
        """The id column of an `identified` table."""
        return "id" if self.id is None else self.id.column

    @property
    def id_type(self) -> KeyType:
        """The type of the id of an `identified` table."""
        if self.id_rule in (IdRule.HASH, IdRule.UUID5):
            return _UUID
        declared = None if self.id is None or self.id.type is None else key_type(self.id.type)
        return declared or (self.key_types[0] if self.id_rule is IdRule.SAME else _UUID)

    @property
    def beside(self) -> bool:
        """Whether the target has no column with the key, nor with the version and the run."""
        return self.id is not None and self.id.beside

    @property
    def keeps_ids(self) -> bool:
        """Whether a listed row keeps its id, whatever its source row has."""
        return self.id_rule is IdRule.ASSIGNED or (self.id is not None and self.id.finds_rows)

    @property
    def hashed(self) -> bool:
        """Whether the id of each row of an `identified` table is its row id."""
        return self.id_rule is IdRule.HASH and not self.keeps_ids

    @property
    def looked_up(self) -> bool:
        """Whether the id does not follow from the key: `sync_row` has it."""
        return self.id_rule is IdRule.COLUMN or self.keeps_ids

    @property
    def listed(self) -> bool:
        """Whether `sync_row` lists the rows, so that others may stand in the target beside them."""
        return self.beside or self.looked_up

    @property
    def stamps(self) -> bool:
        """Whether the target's rows have the version and the run themselves."""
        return self.stamped and not self.beside

    @property
    def id_namespace(self) -> str:
        """The namespace of ids by rule `uuid5`."""
        return (self.id and self.id.namespace) or ""

    def id_expression(self, values: Sequence[str]) -> str:
        """Return the expression of rule `expression` over these values of the key's columns."""
        expression = (self.id and self.id.expression) or "NULL"
        filled = _PLACE.sub(lambda place: f"({values[int(place[1]) - 1]})", expression)
        return f"({filled})::{self.id_type.native}"

    @property
    def key_column(self) -> str | None:
        """The target column with the key itself; None if the key is read from the id or other columns."""
        if not self.identified or len(self.key) > 1 or self.beside:
            return None
        if self.id is None:
            return "key"
        return self.id.key or (None if self.id.rule is IdRule.SAME else "key")

    @property
    def own_parts(self) -> dict[str, KeyType]:
        """The columns of a key that the target has under the same names."""
        if self.key_column is not None or self.beside or (self.identified and len(self.key) == 1):
            return {}
        return {name: self.type_of(name) for name in self.key if self.parent_part(name) is None}

    @property
    def made_of_key(self) -> tuple[str, ...]:
        """The target columns that are made of the key, apart from references."""
        own = (self.id_column if self.identified else None, self.key_column)
        return (*(name for name in own if name is not None), *self.own_parts)

    def parent_part(self, name: str) -> Reference | None:
        """Return the required reference that is this column of the key, if it is one."""
        return next((reference for reference in self.required if reference.column == name), None)

    def type_of(self, name: str) -> KeyType:
        """Return the type of a column of the key or of a reference by key."""
        declared = self.types.get(name, self.copied.get(name, TEXT.name))
        return key_type(declared) or TEXT

    @property
    def key_types(self) -> tuple[KeyType, ...]:
        """The types of the key's columns."""
        return tuple(self.type_of(name) for name in self.key)

    @property
    def key_texts(self) -> dict[str, KeyType]:
        """The source columns with keys, of this table or of parents -> type. They travel in their form."""
        referring = (reference.column for reference in self.references if reference.by is None)
        return {name: self.type_of(name) for name in (*self.key, *referring)}

    @property
    def element_types(self) -> dict[str, KeyType]:
        """The arrays that are links -> type of their elements."""
        return {
            links.source: element_type(self.types.get(links.source, "text[]")) or TEXT for links in self.links
        }

    def is_json(self, array: str) -> bool:
        """Whether an array is a JSON array."""
        return self.types.get(array, "").strip().lower() == JSON_ARRAY


_UUID: Final = KeyType("uuid", Kind.UUID)
_PLACE: Final = re.compile(r"\$(\d+)")
