"""Stored maps of the control plane: every version of every map document, as it was written, by whom and why.

A composition names a map by the options of the built-in provider. Versions are never changed or deleted, so
that a name and a version always mean the same document.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictInt,
    StrictStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from sqlalchemy import (
    Column,
    ColumnElement,
    DateTime,
    Executable,
    Integer,
    MetaData,
    Table,
    Text,
    cast,
    func,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from syncline import names
from syncline.control.audit import Actor
from syncline.errors import CompositionInvalid, InputInvalid, MapInvalid, MapNotFound
from syncline.messages.base import Message
from syncline.messages.provider_state import UsedMap
from syncline.stores.postgres import PostgresStore

if TYPE_CHECKING:
    from syncline.engine.table_map import SchemaMap

__all__ = [
    "LONGEST_DOCUMENT",
    "MAP_NAME",
    "FirstLoadPolicy",
    "MapDocument",
    "MapName",
    "MapOptions",
    "MapPut",
    "MapRepository",
    "NewColumns",
    "StoredMap",
    "map_options",
    "named_map",
    "unknown_map",
]

LONGEST_DOCUMENT: Final = 1_000_000
"""Maximum characters of a document: it travels through Temporal."""
_UNREADABLE: Final = (
    "Another release wrote it, or this one has stricter rules: mend the document "
    "(`syncline map show {0.name} --version {0.version}`) and store it with `syncline map put FILE "
    "--name {0.name}`, or pin an earlier version by `map_version` of the graph's composition."
)
_MOST_NAMED: Final = 20
_MOST_LOADED: Final = 100

MAP_NAME: Final = r"^[a-z][a-z0-9_-]{0,62}$"
MapName = Annotated[str, StringConstraints(pattern=MAP_NAME)]


class NewColumns(StrEnum):
    """What becomes of a column that is added to a source."""

    EVOLVE = "evolve"
    """It is added to the target and to the stored map, and filled in the background."""
    ASK = "ask"
    """Runs tell of it until it is taken or left alone."""
    FREEZE = "freeze"
    """It stays out: a run says so once."""


class FirstLoadPolicy(StrEnum):
    """Whether the first load of empty tables puts off their counts, foreign keys and secondary indexes."""

    FAST = "fast"
    """They are put back, and checked as a whole, once all rows are there."""
    PLAIN = "plain"
    """Nothing is put off: each row is checked, entered and counted as it comes."""


class MapOptions(BaseModel):
    """Options of the built-in provider: the stored map that it syncs; without one, the knowledge graph."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    map: MapName | None = None
    map_version: int | None = Field(default=None, ge=1)
    """Null: the newest version, from the next run on."""
    tenant: Annotated[StrictStr | StrictInt, Field()] | None = None
    """Whose rows the graph has, if the tables of the map tell rows apart by a tenant."""
    new_columns: NewColumns = NewColumns.ASK
    """What becomes of a column that is added to a source."""

    first_load: FirstLoadPolicy | None = None
    """Null: `fast` for target tables that Syncline has made; of others the counts alone are put off."""

    @model_validator(mode="after")
    def _all_is_of_a_map(self) -> Self:
        if self.map_version is not None and self.map is None:
            raise ValueError("`map_version` needs `map`: name the map")
        if self.tenant is not None and self.map is None:
            raise ValueError("`tenant` needs `map`: name the map")
        if self.new_columns is NewColumns.EVOLVE and self.map is None:
            raise ValueError("`new_columns: evolve` needs `map`: only a stored map gets a next version")
        if self.new_columns is NewColumns.EVOLVE and self.map_version is not None:
            raise ValueError("`new_columns: evolve` makes next versions: leave `map_version` out")
        return self

    @property
    def shared(self) -> Self:
        """The options without the tenant: what the graphs of all tenants have in common."""
        return self if self.tenant is None else self.model_copy(update={"tenant": None})

    def pinned(self, used: UsedMap | None) -> Self:
        """Return the options with the version that a run has resolved."""
        if used is None or used.name != self.map:
            return self
        return self.model_copy(update={"map_version": used.version})


def map_options(composition: Mapping[str, JsonValue], *, shadow: bool = False) -> MapOptions:
    """Return the options of a record's built-in provider; without a map if it names none or is invalid."""
    entry = composition.get("shadow" if shadow else "sync")
    if not isinstance(entry, dict) or entry.get("provider") != names.DEFAULT_PROVIDER:
        return MapOptions()
    try:
        return MapOptions.model_validate(entry.get("options") or {})
    except ValidationError:
        return MapOptions()


class StoredMap(Message):
    """One version of a stored map, without its document."""

    name: str
    version: int
    hash: str
    """Hash of what the document says: equal for versions that differ only in layout and comments."""
    at: datetime
    who: str = ""
    why: str = ""
    starter: str | None = None
    """Who started the run that stored it, by Temporal."""
    run_id: str | None = None
    graphs: tuple[str, ...] = ()
    """Slugs of the graphs that are synced by this version, where maps are listed."""


class MapDocument(StoredMap):
    """One version of a stored map."""

    document: str
    """As it was written."""


class MapPut(Message):
    """What storing a document came to."""

    stored: StoredMap
    created: bool
    """False: the newest version has this very document already."""


_maps = Table(
    "maps",
    MetaData(schema="syncline"),
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("document", Text),
    Column("hash", Text),
    Column("at", DateTime(timezone=True)),
    Column("who", Text),
    Column("why", Text),
    Column("starter", Text),
    Column("run_id", Text),
)
_LISTED: Final = [column for column in _maps.columns if column.name != "document"]
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('syncline.maps:' || :name, 0))")


def named_map(composition: ColumnElement[Mapping[str, JsonValue]], key: str) -> ColumnElement[object]:
    """Return the expression for the map that an entry of a composition names, as `UsedMap`; NULL if none."""
    options = composition[key]["options"]
    pinned = options["map_version"].as_string()
    return (
        select(
            func.jsonb_build_object("name", _maps.c.name, "version", _maps.c.version, "hash", _maps.c.hash)
        )
        .where(
            _maps.c.name == options["map"].as_string(),
            or_(pinned.is_(None), cast(_maps.c.version, Text) == pinned),
        )
        .order_by(_maps.c.version.desc())
        .limit(1)
        .scalar_subquery()
    )


async def unknown_map(
    connection: AsyncConnection, slug: str, key: str, options: MapOptions
) -> CompositionInvalid | None:
    """Return why a composition names no stored map, with the known ones; None if it does."""
    if options.map is None:
        return None
    versions = select(_maps.c.version).where(_maps.c.name == options.map)
    found = (await connection.execute(versions)).scalars().all()
    if options.map_version is None and found:
        return None
    if found:
        if options.map_version in found:
            return None
        problem = f"map '{options.map}' has no version {options.map_version}; its newest is {max(found)}"
        return CompositionInvalid(slug, f"{key}.options.map_version", problem)
    stored = ", ".join(await _known_names(connection)) or "none; `syncline map put FILE` stores one"
    return CompositionInvalid(
        slug, f"{key}.options.map", f"no map '{options.map}' is stored (stored: {stored})"
    )


async def _known_names(connection: AsyncConnection) -> Sequence[str]:
    """Return the names of stored maps, the first twenty."""
    listed = select(_maps.c.name).distinct().order_by(_maps.c.name).limit(_MOST_NAMED)
    return (await connection.execute(listed)).scalars().all()


class MapRepository:
    """Repository of stored maps in the control database. It keeps documents that it has read."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._loaded: dict[tuple[str, int], tuple[UsedMap, SchemaMap]] = {}

    async def put(
        self,
        name: str,
        document: str,
        *,
        hash: str,  # noqa: A002
        actor: Actor,
        after: int | None = None,
    ) -> MapPut:
        """Store a document as the next version of a map, unless the newest version is that very document.

        An attempt of a run that has stored it already returns the same. Raise InputInvalid if `after` is
        given and no longer the newest version.
        """
        newest = select(_maps).where(_maps.c.name == name).order_by(_maps.c.version.desc()).limit(1)
        async with self._store.begin() as connection:
            await connection.execute(_LOCK, {"name": name})
            before = (await connection.execute(newest)).mappings().one_or_none()
            if before is not None and before["document"] == document:
                again = actor.run_id is not None and before["run_id"] == actor.run_id
                return MapPut(stored=StoredMap.model_validate(dict(before)), created=again)
            if after is not None and (before is None or before["version"] != after):
                raise InputInvalid(f"Map {name} has another version than {after} by now: try again.")
            values = {
                "name": name,
                "version": 1 if before is None else before["version"] + 1,
                "document": document,
                "hash": hash,
                **actor.model_dump(),
            }
            added = _maps.insert().values(values).returning(*_LISTED)
            row = (await connection.execute(added)).mappings().one()
            return MapPut(stored=StoredMap.model_validate(dict(row)), created=True)

    async def get(self, name: str, version: int | None = None) -> MapDocument:
        """Return a version of a map, the newest if none is given; raise MapNotFound naming the known ones."""
        wanted = select(_maps).where(_maps.c.name == name).order_by(_maps.c.version.desc()).limit(1)
        if version is not None:
            wanted = wanted.where(_maps.c.version == version)
        async with self._store.begin() as connection:
            row = (await connection.execute(wanted)).mappings().one_or_none()
            if row is not None:
                return MapDocument.model_validate(dict(row))
            versions = select(func.max(_maps.c.version)).where(_maps.c.name == name)
            newest = (await connection.execute(versions)).scalar_one()
            known = await _known_names(connection)
        raise MapNotFound(name, version, newest=newest, known=known)

    async def unknown(self, slug: str, key: str, options: MapOptions) -> CompositionInvalid | None:
        """Return why a composition names no stored map, with the known ones; None if it does."""
        async with self._store.begin() as connection:
            return await unknown_map(connection, slug, key, options)

    async def list(self, *, after: str | None = None, limit: int) -> Sequence[StoredMap]:
        """Return the newest version of each map, by name; at most `limit`, those after `after`."""
        newest = select(_maps.c.name, func.max(_maps.c.version)).group_by(_maps.c.name)
        wanted = (
            select(*_LISTED)
            .where(tuple_(_maps.c.name, _maps.c.version).in_(newest))
            .order_by(_maps.c.name)
            .limit(limit)
        )
        if after is not None:
            wanted = wanted.where(_maps.c.name > after)
        return await self._select(wanted)

    async def history(self, name: str, *, before: int | None = None, limit: int) -> Sequence[StoredMap]:
        """Return the versions of a map, newest first; at most `limit`, those before `before`."""
        wanted = select(*_LISTED).where(_maps.c.name == name).order_by(_maps.c.version.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(_maps.c.version < before)
        return await self._select(wanted)

    async def _select(self, wanted: Executable) -> Sequence[StoredMap]:
        async with self._store.begin() as connection:
            rows = (await connection.execute(wanted)).mappings().all()
        return [StoredMap.model_validate(dict(row)) for row in rows]

    async def load(self, options: MapOptions) -> "tuple[UsedMap, SchemaMap] | None":
        """Return the map that the options name, of the tenant that they name; None if they name no map.

        Raise MapNotFound, MapInvalid, or TenantInvalid.
        """
        found = await self.load_shared(options)
        if found is None:
            return None
        from syncline.maps.one_tenant import of_tenant

        return found[0], of_tenant(found[1], options.tenant)

    async def load_shared(self, options: MapOptions) -> "tuple[UsedMap, SchemaMap] | None":
        """Return the map that the options name, for every tenant. A version is read and parsed once."""
        if options.map is None:
            return None
        if options.map_version is not None and (
            known := self._loaded.get((options.map, options.map_version))
        ):
            return known
        stored = await self.get(options.map, options.map_version)
        key = (stored.name, stored.version)
        if key not in self._loaded:
            # Reading documents needs the engine's models, which most processes never load.
            from syncline.maps.document import read_map

            used = UsedMap(name=stored.name, version=stored.version, hash=stored.hash)
            source = f"map {stored.name}, version {stored.version}"
            try:
                schema_map = read_map(stored.document, source=source)
            except MapInvalid as unreadable:
                raise MapInvalid(source, unreadable.problems, fix=_UNREADABLE.format(stored)) from None
            if len(self._loaded) >= _MOST_LOADED:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[key] = used, schema_map
        return self._loaded[key]
