"""Graph records of the control plane: their model, rules, and repository.

A record declares the graph's location (a schema in two Postgres stores, a prefix in a Qdrant), its schedule
and its composition. Stores are named by their key in the settings, so the table never contains a connection
URI. One module because the rules of a record and the statements that store it are changed together.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self
from uuid import UUID, uuid4

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)
from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Double,
    Integer,
    MetaData,
    RowMapping,
    Table,
    Text,
    Uuid,
    and_,
    bindparam,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from syncline import names
from syncline.control.audit import Actor, GraphAuditPage, audited_slug, list_graph_audit, write_graph_audit
from syncline.control.composition import (
    Composition,
    composition_invalid,
    own_provider,
    parse_composition,
    swapped,
)
from syncline.control.maps import MapOptions, named_map, unknown_map
from syncline.control.schedule_spec import ScheduleSpec, never_comes
from syncline.control.sharing import Sources, check_sharing, has_sources, tenant_named
from syncline.control.vector_rules import VectorRules
from syncline.errors import GraphInvalid, GraphNotFound, StoreRejected
from syncline.messages.base import Fairness, GraphRef, GraphStatus
from syncline.messages.provider_state import UsedMap
from syncline.stores.postgres import PostgresStore

__all__ = [
    "Graph",
    "GraphChanges",
    "GraphDraft",
    "GraphRecords",
    "GraphRepository",
    "GraphStatus",
    "check_comes",
    "draft_graph",
    "graph_changes",
]

RESERVED_SCHEMAS = frozenset({"syncline", "information_schema"})
_SAID = "public"
"""A schema with what others put there: a graph is made in it only where its record says so."""


def _not_reserved(schema: str) -> str:
    if schema in RESERVED_SCHEMAS or schema.startswith("pg_"):
        raise ValueError(f"'{schema}' is reserved; name another schema")
    return schema


Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$", max_length=63)]
SchemaName = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=63), AfterValidator(_not_reserved)
]
StoreKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
QdrantPrefix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
LONGEST_LAG = 2_592_000
MaxLag = Annotated[int, Field(ge=1, le=LONGEST_LAG)]
# What Temporal takes: 64 bytes, and weights outside of these bounds are cut to them in silence.
FairnessKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/-]*$", max_length=64)]
FairnessWeight = Annotated[float, Field(ge=0.001, le=1000)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class GraphDraft(_Record):
    """A graph to be added. Omitted fields are derived from the slug."""

    slug: Slug
    name: Name | None = None
    status: GraphStatus = GraphStatus.ACTIVE
    is_default: bool = False
    write_store: StoreKey | None = None
    graph_store: StoreKey | None = None
    schema_name: SchemaName | None = None
    """Schema in the write-db and the graph-db; default: the slug with `_` for `-`."""
    write_schema: SchemaName | None = None
    """Schema in the write-db, if it is another: graphs of other tenants may have the same."""
    qdrant_prefix: QdrantPrefix | None = None
    """Prefix of every collection; default: the schema's name and `_`."""
    qdrant_store: StoreKey | None = None
    schedule: ScheduleSpec = ScheduleSpec()
    composition: Mapping[str, JsonValue] = Field(default_factory=dict)
    vectors: VectorRules = VectorRules()
    max_lag_seconds: MaxLag | None = None
    """How far its graph-db may be behind; alarms and `status` hold it to that. Null: nothing is promised."""
    fairness_key: FairnessKey | None = None
    """The tenant that its waiting work is counted to, by Temporal's fairness. Null: the graph itself."""
    fairness_weight: FairnessWeight | None = None
    """The share of that tenant among those that wait; null: 1."""

    @model_validator(mode="after")
    def _place_follows_from_slug(self) -> Self:
        if self.schema_name is None:
            schema = _not_reserved(self.slug.replace("-", "_"))
            if schema == _SAID:
                raise ValueError(f"'{schema}' is reserved; name another schema, or this one")
        return self

    @property
    def place(self) -> tuple[str, str]:
        """The schema name and the Qdrant prefix, declared or derived from the slug."""
        schema = self.schema_name or self.slug.replace("-", "_")
        return schema, self.qdrant_prefix or f"{schema}_"

    def completed(self) -> dict[str, object]:
        """Return the fields of the record, including those derived from the slug."""
        schema, prefix = self.place
        return {
            **self.model_dump(mode="json"),
            "name": self.name or self.slug,
            "schema_name": schema,
            "qdrant_prefix": prefix,
        }


class GraphChanges(_Record):
    """Changes of a graph: the fields that are not None. Its location cannot change."""

    name: Name | None = None
    status: GraphStatus | None = None
    is_default: bool | None = None
    schedule: ScheduleSpec | None = None
    composition: Mapping[str, JsonValue] | None = None
    vectors: VectorRules | None = None
    max_lag_seconds: Annotated[int, Field(ge=0, le=LONGEST_LAG)] | None = None
    """Zero: nothing is promised any more."""
    fairness_key: FairnessKey | Literal[""] | None = None
    """Empty: the graph itself."""
    fairness_weight: FairnessWeight | Literal[0] | None = None
    """Zero: 1, unless the task queue's configuration has another for the key."""


class Graph(_Record):
    """One graph record of the control plane."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    id: UUID
    slug: Slug
    name: Name
    status: GraphStatus
    is_default: bool
    write_store: StoreKey | None
    """Key of the write-db in the settings; null: the default write-db."""
    graph_store: StoreKey | None
    schema_name: SchemaName
    """The schema in the graph-db, and in the write-db unless `write_schema` is another."""
    write_schema: SchemaName | None = None
    qdrant_prefix: QdrantPrefix
    qdrant_store: StoreKey | None
    schedule: ScheduleSpec
    composition: dict[str, JsonValue]
    """As stored, unvalidated: `syncline.control.composition.parse_composition` validates it."""
    vectors: VectorRules = VectorRules()
    max_lag_seconds: MaxLag | None = None
    fairness_key: FairnessKey | None = None
    fairness_weight: FairnessWeight | None = None
    created_at: datetime
    updated_at: datetime

    def matches(self, draft: GraphDraft) -> bool:
        """Return whether adding the draft would have created an equal record."""
        declared = draft.completed()
        return declared == self.model_dump(mode="json", include=set(declared))

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the record: from `updated_at`, which the database sets on each write."""
        return self.updated_at.astimezone(UTC).isoformat()

    @property
    def source_schema(self) -> str:
        """The schema of its sources in the write-db; graphs of other tenants may have the same."""
        return self.write_schema or self.schema_name

    @property
    def fairness(self) -> Fairness:
        """The tenant that its waiting work is counted to."""
        return Fairness(key=self.fairness_key or self.slug, weight=self.fairness_weight)

    @property
    def ref(self) -> GraphRef:
        """The graph's identity in messages."""
        return GraphRef(id=self.id, slug=self.slug)

    @property
    def shadowed(self) -> bool:
        """Whether its composition declares a shadow."""
        return bool(self.composition.get("shadow"))

    @property
    def rebuilt(self) -> bool:
        """Whether its shadow has the graph's own provider, with the same options: as a rebuild has it."""
        return self.shadowed and self.composition["shadow"] == own_provider(self.composition)

    @property
    def shadow_ref(self) -> GraphRef:
        """Identity of its shadow in messages: the same id, the shadow's name."""
        return GraphRef(id=self.id, slug=names.shadow_slug(self.slug))


@dataclass(frozen=True, kw_only=True)
class GraphRecords:
    """All records of the control plane, invalid ones separately."""

    valid: Sequence[Graph]
    invalid: Mapping[str, GraphInvalid]
    """Slug to problem: an invalid record, such as a manually edited one, affects only its own graph."""


_graphs = Table(
    "graphs",
    MetaData(schema="syncline"),
    Column("id", Uuid, primary_key=True),
    Column("slug", Text),
    Column("name", Text),
    Column("status", Text),
    Column("is_default", Boolean),
    Column("write_store", Text),
    Column("graph_store", Text),
    Column("schema_name", Text),
    Column("write_schema", Text),
    Column("qdrant_prefix", Text),
    Column("qdrant_store", Text),
    Column("schedule", JSONB),
    Column("composition", JSONB),
    Column("vectors", JSONB),
    Column("max_lag_seconds", Integer),
    Column("fairness_key", Text),
    Column("fairness_weight", Double),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
)

_REFUSALS = {
    "graphs_slug_unique": ("slug", "another graph has it"),
    "graphs_schema_unique": ("schema_name", "another graph of the same graph store has it"),
    "graphs_prefix_unique": ("qdrant_prefix", "another graph of the same Qdrant has it"),
    "graphs_schema_of_shadow": ("schema_name", "it ends in _shadow, as the schemas of shadows do"),
    "graphs_prefix_of_shadow": (
        "qdrant_prefix",
        "it ends in shadow_, as the prefixes of shadows do, or a shadow has it",
    ),
    "graphs_one_default": ("is_default", "another graph became the default at the same moment; try again"),
}


def draft_graph(fields: Mapping[str, object]) -> GraphDraft:
    """Return the draft of a graph from untrusted fields, or raise GraphInvalid naming the field."""
    try:
        draft = GraphDraft.model_validate(fields)
    except ValidationError as error:
        raise _invalid(str(fields.get("slug", "?")), error) from None
    check_comes(draft.slug, draft.schedule)
    return draft


def graph_changes(slug: str, fields: Mapping[str, object]) -> GraphChanges:
    """Return changes from untrusted fields, or raise GraphInvalid naming the field."""
    try:
        changes = GraphChanges.model_validate(fields)
    except ValidationError as error:
        raise _invalid(slug, error) from None
    if changes.schedule is not None:
        check_comes(slug, changes.schedule)
    return changes


def check_comes(slug: str, schedule: ScheduleSpec) -> None:
    """Raise GraphInvalid if the schedule is never due.

    Only for a record that is about to be written: a stored record's last time may have passed since.
    """
    problem = never_comes(schedule)
    if problem is not None:
        raise GraphInvalid(slug, "schedule.cron", problem)


Prepare = Callable[[Graph], Awaitable[object]]


class GraphRepository:
    """Repository of graph records in the control database."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def get(self, reference: str | UUID) -> Graph:
        """Return the graph with this slug or id, or raise GraphNotFound. A slug takes precedence."""
        async with self._store.begin() as connection:
            found = (await connection.execute(_GRAPH, _named(reference))).mappings().all()
        return _graph(_of_slug(found, reference))

    async def get_with_map(
        self, reference: str | UUID, *, shadow: bool = False
    ) -> tuple[Graph, UsedMap | None]:
        """Return the graph as `get` does, and the stored map that its composition names, or its shadow's.

        One statement; the map is None if none is named, or none of the name and version is stored.
        """
        async with self._store.begin() as connection:
            found = (await connection.execute(_WITH_MAP[shadow], _named(reference))).mappings().all()
        row = dict(_of_slug(found, reference))
        used = row.pop("named_map")
        return _graph(row), None if used is None else UsedMap.model_validate(used)

    async def alone(self, graph: Graph) -> bool:
        """Return whether no other graph, of any status, reads the same rows of the same write schema."""
        mine = tenant_named(graph.composition)
        others = select(_graphs.c.composition).where(_sharing(graph))
        async with self._store.begin() as connection:
            # Not whole records: one of another graph that is invalid is no concern of this one's cycles.
            found = (await connection.execute(others)).scalars().all()
        theirs = {tenant_named(composition or {}) for composition in found}
        return not theirs or (mine is not None and theirs.isdisjoint({None, mine}))

    async def sharing(self, graph: Graph) -> Sequence[Graph]:
        """Return the other graphs, of any status, with the same write store and schema."""
        return await self._select(_sharing(graph))

    async def default(self) -> Graph:
        """Return the default graph, or raise GraphNotFound."""
        found = await self._select(_graphs.c.is_default)
        if not found:
            raise GraphNotFound(None)
        return found[0]

    async def list(self, *, after: str | None = None) -> Sequence[Graph]:
        """Return all graphs by slug, or those after `after`; raise GraphInvalid if a record is invalid."""
        return await self._select(None if after is None else _graphs.c.slug > after)

    async def records(self) -> GraphRecords:
        """Return all graphs by slug, and the problems of invalid records."""
        valid, invalid = [], {}
        for row in await self._rows(None):
            try:
                valid.append(_graph(row))
            except GraphInvalid as error:
                invalid[error.graph] = error
        return GraphRecords(valid=valid, invalid=invalid)

    async def add(
        self, draft: GraphDraft, *, prepare: Prepare | None = None, actor: Actor | None = None
    ) -> Graph:
        """Add a graph and return it, or raise GraphInvalid or CompositionInvalid.

        A new default graph replaces the current one. `prepare` runs before the record becomes visible, and
        if it fails there is no record: a run that finds a graph finds its schemas. Audited with an `actor`.
        """
        composition = parse_composition(draft.slug, draft.composition)
        values = {**draft.completed(), "id": uuid4()}
        try:
            async with self._store.begin() as connection:
                await _check_maps(connection, draft.slug, composition)
                await check_sharing(connection, _graphs, _draft_sources(draft))
                if draft.is_default:
                    await _clear_default(connection)
                rows = await connection.execute(_graphs.insert().values(values).returning(_graphs))
                graph = _graph(rows.mappings().one())
                if prepare is not None:
                    await prepare(graph)
                await _audited(connection, graph, "add", actor)
                return graph
        except StoreRejected as error:
            raise _refusal(draft.slug, error) from error

    async def ensure(self, draft: GraphDraft, *, prepare: Prepare, actor: Actor | None = None) -> Graph:
        """Add a graph, or return an equal existing one after `prepare`; raise as `add` does."""
        try:
            return await self.add(draft, prepare=prepare, actor=actor)
        except GraphInvalid:
            with contextlib.suppress(GraphNotFound):
                present = await self.get(draft.slug)
                if present.slug == draft.slug and present.matches(draft):
                    await prepare(present)
                    return present
            raise

    async def update(
        self, reference: str | UUID, changes: GraphChanges, *, actor: Actor | None = None
    ) -> Graph:
        """Apply the changes and return the graph, or raise as `get` and `add` do; audited with an `actor`."""
        graph = await self.get(reference)
        # None of a nested field is a value (no cron); None of a top-level field means no change.
        values = {name: value for name, value in changes.model_dump(mode="json").items() if value is not None}
        taken_back = {"max_lag_seconds": 0, "fairness_key": "", "fairness_weight": 0}
        values |= {name: None for name, none in taken_back.items() if values.get(name) == none}
        composition = Composition()
        if changes.composition is not None:
            composition = parse_composition(graph.slug, changes.composition)
        if not values:
            return graph
        statement = _graphs.update().where(_graphs.c.id == graph.id).values(values).returning(_graphs)
        try:
            async with self._store.begin() as connection:
                await _check_maps(connection, graph.slug, composition)
                if changes.composition is not None:
                    await check_sharing(connection, _graphs, _sources(graph, changes.composition))
                if values.get("is_default"):
                    await _clear_default(connection)
                row = (await connection.execute(statement)).mappings().one_or_none()
                if row is not None:
                    action = _ACTIONS.get(changes.status, "change")
                    await _audited(connection, _graph(row), action, actor, fields=list(values))
        except StoreRejected as error:
            raise _refusal(graph.slug, error) from error
        if row is None:
            raise GraphNotFound(str(reference))
        return _graph(row)

    async def swap_shadow(
        self,
        graph: Graph,
        *,
        within: AsyncConnection | None = None,
        actor: Actor | None = None,
        action: str = "promote",
    ) -> Graph:
        """Swap the graph and its shadow in the record: their providers and their prefixes. Return it.

        `graph` is the record before the swap: a stored one with another prefix has been swapped already.
        `within` is a connection to the control database, whose transaction this becomes part of.
        """
        async with nullcontext(within) if within is not None else self._store.begin() as connection:
            wanted = _graphs.c.id == graph.id
            row = (await connection.execute(select(_graphs).where(wanted).with_for_update())).mappings().one()
            present = _graph(row)
            if present.qdrant_prefix != graph.qdrant_prefix:
                return present
            values = {
                "composition": swapped(present.composition),
                "qdrant_prefix": names.shadow_prefix(present.qdrant_prefix),
            }
            statement = _graphs.update().where(wanted).values(values).returning(_graphs)
            await _audited(connection, graph, action, actor, fields=list(values))
            return _graph((await connection.execute(statement)).mappings().one())

    async def rename(self, graph: Graph, slug: str, *, actor: Actor) -> Graph:
        """Give the graph another slug, audited, and return it; where it lives stays. Raise GraphInvalid."""
        try:
            draft = GraphDraft(slug=slug, schema_name=graph.schema_name)
        except ValidationError as error:
            raise _invalid(slug, error) from None
        statement = (
            _graphs.update().where(_graphs.c.id == graph.id).values(slug=draft.slug).returning(_graphs)
        )
        try:
            async with self._store.begin() as connection:
                row = (await connection.execute(statement)).mappings().one_or_none()
                if row is None:
                    raise GraphNotFound(graph.slug)
                await _audited(connection, graph, "rename", actor, fields=[f"{graph.slug} -> {slug}"])
                return _graph(row)
        except StoreRejected as error:
            raise _refusal(slug, error) from error

    async def audited_by(self, run_id: str, action: str) -> str | None:
        """Return the slug that a graph had when this run audited the action on it; None if it has not."""
        return await audited_slug(self._store, action, run_id)

    async def delete(self, graph: Graph) -> None:
        """Delete the record of an archived graph; nothing happens if it is gone, or no longer archived."""
        archived = _graphs.c.status == GraphStatus.ARCHIVED.value
        async with self._store.begin() as connection:
            await connection.execute(_graphs.delete().where(_graphs.c.id == graph.id, archived))

    async def audit(self, graph: Graph, action: str, actor: Actor, *, fields: Sequence[str] = ()) -> None:
        """Insert an audit entry for an action on a graph that does not change its record."""
        async with self._store.begin() as connection:
            await _audited(connection, graph, action, actor, fields=fields)

    async def audited(
        self, reference: str | None, *, limit: int, before: int | None = None
    ) -> GraphAuditPage:
        """Return a page of the audit of one graph or all; raise GraphNotFound."""
        graph_id = None if reference is None else (await self.get(reference)).id
        return await list_graph_audit(self._store, graph_id, limit=limit, before=before)

    async def _select(self, wanted: ColumnElement[bool] | None) -> Sequence[Graph]:
        return [_graph(row) for row in await self._rows(wanted)]

    async def _rows(self, wanted: ColumnElement[bool] | None) -> Sequence[RowMapping]:
        statement = select(_graphs).order_by(_graphs.c.slug)
        if wanted is not None:
            statement = statement.where(wanted)
        async with self._store.begin() as connection:
            return (await connection.execute(statement)).mappings().all()


_ACTIONS: Mapping[GraphStatus | None, str] = {
    GraphStatus.ACTIVE: "resume",
    GraphStatus.PAUSED: "pause",
    GraphStatus.ARCHIVED: "archive",
}


async def _audited(
    connection: AsyncConnection,
    graph: Graph,
    action: str,
    actor: Actor | None,
    *,
    fields: Sequence[str] = (),
) -> None:
    if actor is not None:
        await write_graph_audit(
            connection, graph_id=graph.id, slug=graph.slug, action=action, actor=actor, fields=fields
        )


# Made once: every run reads its record twice, and what makes a statement costs as much as to ask it.
_REFERRED: Final = or_(_graphs.c.slug == bindparam("slug"), _graphs.c.id == bindparam("id"))
_GRAPH: Final = select(_graphs).where(_REFERRED)
_WITH_MAP: Final = {
    shadow: select(*_graphs.columns, named_map(_graphs.c.composition, key).label("named_map")).where(
        _REFERRED
    )
    for shadow, key in ((False, "sync"), (True, "shadow"))
}


def _named(reference: str | UUID) -> dict[str, object]:
    """Return the parameters for the graph with this slug or id."""
    return {"slug": str(reference), "id": _as_id(reference)}


def _of_slug(found: Sequence[RowMapping], reference: str | UUID) -> RowMapping:
    """Return the row with this slug, else the one with this id; raise GraphNotFound if there is none."""
    if not found:
        raise GraphNotFound(str(reference))
    return next((row for row in found if row["slug"] == reference), found[0])


async def _check_maps(connection: AsyncConnection, slug: str, composition: Composition) -> None:
    """Raise CompositionInvalid if the built-in provider is given a map that is not stored."""
    for key, entry in (("sync", composition.sync), ("shadow", composition.shadow)):
        if entry is None or entry.provider != names.DEFAULT_PROVIDER:
            continue
        try:
            options = MapOptions.model_validate(entry.options)
        except ValidationError as error:
            raise composition_invalid(slug, f"{key}.options", error) from None
        unknown = await unknown_map(connection, slug, key, options)
        if unknown is not None:
            raise unknown


def _sharing(graph: Graph) -> ColumnElement[bool]:
    return and_(_graphs.c.id != graph.id, has_sources(_graphs, graph.write_store, graph.source_schema))


def _draft_sources(draft: GraphDraft) -> Sources:
    schema, _ = draft.place
    return Sources(
        slug=draft.slug,
        store=draft.write_store,
        schema=draft.write_schema or schema,
        elsewhere=draft.write_schema is not None,
        composition=draft.composition,
    )


def _sources(graph: Graph, composition: Mapping[str, JsonValue]) -> Sources:
    return Sources(
        slug=graph.slug,
        store=graph.write_store,
        schema=graph.source_schema,
        elsewhere=graph.write_schema is not None,
        composition=composition,
    )


async def _clear_default(connection: AsyncConnection) -> None:
    await connection.execute(_graphs.update().where(_graphs.c.is_default).values(is_default=False))


def _graph(row: Mapping[str, object] | RowMapping) -> Graph:
    try:
        return Graph.model_validate(dict(row))
    except ValidationError as error:
        raise _invalid(str(row["slug"]), error) from None


def _as_id(reference: str | UUID) -> UUID | None:
    if isinstance(reference, UUID):
        return reference
    try:
        return UUID(reference)
    except ValueError:
        return None


def _invalid(slug: str, error: ValidationError) -> GraphInvalid:
    first = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "schema_name"
    return GraphInvalid(slug, field, first["msg"].removeprefix("Value error, "))


def _refusal(slug: str, error: StoreRejected) -> GraphInvalid | StoreRejected:
    """Return the GraphInvalid for a violated constraint, or the error itself for any other."""
    for constraint, (field, problem) in _REFUSALS.items():
        if error.constraint == constraint:
            return GraphInvalid(slug, field, problem)
    return error
