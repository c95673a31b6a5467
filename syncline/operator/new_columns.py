"""New columns: takes what was added to a source into the target and the stored map, or leaves it alone."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import asyncpg

from syncline.control.audit import Actor
from syncline.control.maps import MapOptions, MapRepository, NewColumns, StoredMap, map_options
from syncline.engine.known_columns import read_known
from syncline.engine.map_changes import map_hash
from syncline.engine.render.fragments import source_names
from syncline.engine.schema_transaction import SCHEMA_PATH
from syncline.errors import InputInvalid, MapInvalid, SynclineError
from syncline.maps.document import read_map
from syncline.maps.edits import with_column, with_ignored
from syncline.messages.operator import ColumnsDecided, DecideColumnsInput
from syncline.messages.sync import NewColumn, SyncResult
from syncline.names import shadowed_slug
from syncline.operator.schema import sql
from syncline.operator.shared_maps import graphs_of_map, sharing
from syncline.provider import GraphSchema, SyncContext
from syncline.quoting import shown
from syncline.sql import quoted

if TYPE_CHECKING:
    from syncline.control.graphs import GraphRepository
    from syncline.control.services import Services

__all__ = ["Taken", "decide_columns", "decided", "take_columns", "ways_out"]

_LOCK: Final = "SET LOCAL lock_timeout = '3s'"
"""Readers that wait behind us wait no longer than this."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What taking columns came to."""

    stored: StoredMap | None = None
    """The version of the map that has them; None if none could be taken."""
    columns: tuple[NewColumn, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    """`table.column` -> why it was not taken."""


def label(column: NewColumn) -> str:
    """Return a column as commands name it."""
    return f"{column.table}.{column.column}"


def ways_out(column: NewColumn, graph: str, options: MapOptions) -> NewColumn:
    """Return a new column with the commands that decide about it; `graph` may name a shadow."""
    if options.map is None:
        fix = (
            "The built-in map cannot name it: give the graph a map of its own, or set its option "
            "`new_columns` to `freeze`."
        )
        return column.model_copy(update={"fix": fix})
    if shadowed_slug(graph) is not None:
        fix = f"Name it in `columns` or `ignored` of map {options.map}, by `syncline map put`."
        return column.model_copy(update={"fix": fix})
    take = f"Take it: `syncline map take {graph} {label(column)}`. "
    leave = f"Leave it alone: `syncline map ignore {graph} {label(column)}`."
    return column.model_copy(update={"fix": leave if column.problem else take + leave})


async def decided(
    result: SyncResult,
    context: SyncContext,
    options: MapOptions,
    *,
    maps: MapRepository,
    graphs: "GraphRepository",
) -> SyncResult:
    """Return the result of a cycle that found new columns with what decides about them.

    By policy `evolve` those that can be taken are, and the next run, which is asked for at once, fills them.
    """
    waiting = result.new_columns
    if options.new_columns is NewColumns.EVOLVE and options.map is not None and not context.shadow:
        # The cycle itself has succeeded: an error is said of the columns, and the next cycle tries again.
        try:
            taken = await _evolve(context, options.map, waiting, maps=maps, graphs=graphs)
        except SynclineError as error:
            taken = Taken(problems={label(column): str(error) for column in waiting})
        return _with_taken(result, taken, context.graph.slug, options)
    return result.model_copy(
        update={"new_columns": tuple(ways_out(each, context.graph.slug, options) for each in waiting)}
    )


async def _evolve(
    context: SyncContext,
    name: str,
    waiting: Sequence[NewColumn],
    *,
    maps: MapRepository,
    graphs: "GraphRepository",
) -> Taken:
    shares = await sharing(graphs, name, context.graph.slug, context.target)
    if shares.apart:
        shared = f"Map {name} syncs {'; and '.join(shares.apart)}: take it by hand once all have it."
        return Taken(problems={label(column): shared for column in waiting})
    added = ", ".join(f"{column.source}.{column.column}" for column in waiting if column.problem is None)
    actor = Actor(
        who="syncline",
        why=f"policy evolve of graph {context.graph.slug}: {added} was added",
        run_id=context.run.run_id,
    )
    # Before the version is stored: by then the next run of each graph wants the column in its target.
    done = await take_columns(maps, name, context.target, waiting, actor, also=shares.alike)
    for column in done.columns:
        context.log.info(
            "new column taken",
            graph=context.graph.slug,
            table=column.table,
            column=column.column,
            version=None if done.stored is None else done.stored.version,
        )
    return done


def _with_taken(result: SyncResult, taken: Taken, graph: str, options: MapOptions) -> SyncResult:
    there = {label(column) for column in taken.columns}
    left = [
        # What only this cycle could not do is left to the command, which says it again if it cannot either.
        ways_out(each, graph, options).model_copy(update={"problem": taken.problems[label(each)]})
        for each in result.new_columns
        if label(each) not in there and label(each) in taken.problems
    ]
    version = 0 if taken.stored is None else taken.stored.version
    notes = [
        f"{each.table}: {each.source}.{each.column} ({each.type}) was added, so {each.table} and map "
        f"{options.map}, version {version}, have it too; the next run fills it."
        for each in taken.columns
    ]
    return result.model_copy(
        update={
            "new_columns": tuple(left),
            "map_changes": (*result.map_changes, *notes),
            "look_owed": result.look_owed or bool(taken.columns),
        }
    )


async def take_columns(
    maps: MapRepository,
    name: str,
    target: GraphSchema,
    columns: Sequence[NewColumn],
    actor: Actor,
    *,
    also: Sequence[GraphSchema] = (),
) -> Taken:
    """Add columns to their target tables, nullable, and to the next version of a stored map.

    `also`: the targets of other graphs of the map that have it at their source; theirs come first. A column
    that cannot be added, or that the map cannot have, is left out and said.
    """
    stored = await maps.get(name)
    document, taken, problems = stored.document, list[NewColumn](), dict[str, str]()
    for column in columns:
        if _is_read(document, column):
            continue
        try:
            edited = with_column(document, column.table, column.column, _map_type(column.type))
        except MapInvalid as refused:
            problems[label(column)] = " ".join(f"{each.problem}. {each.fix}" for each in refused.problems)
            continue
        problem = column.problem
        for place in (*also, target):
            problem = problem or await _add_column(place, column)
        if problem is not None:
            problems[label(column)] = problem
            continue
        document = edited
        taken.append(column)
    if not taken:
        return Taken(problems=problems)
    put = await maps.put(name, document, hash=_hash(document), actor=actor, after=stored.version)
    return Taken(stored=put.stored, columns=tuple(taken), problems=problems)


async def decide_columns(services: "Services", request: DecideColumnsInput, actor: Actor) -> ColumnsDecided:
    """Take new columns of a graph, or leave them alone; raise InputInvalid naming the ones that wait."""
    graph = await services.graphs.get(request.graph)
    options = map_options(graph.composition)
    if options.map is None:
        raise InputInvalid(
            f"Graph {shown(graph.slug)} has no stored map to change.",
            fix="The author of its map takes the column into `columns`, or leaves it alone by `ignored`.",
        )
    if options.map_version is not None:
        raise InputInvalid(
            f"Graph {shown(graph.slug)} stays with version {options.map_version} of map {options.map}.",
            fix="Leave `map_version` out of its composition, or put and name the next version yourself.",
        )
    target = services.target_schema(graph)
    async with target.store.driver() as connection:
        known = await read_known(connection, target.schema)
    waiting = {label(column): column for table in known.values() for column in table.new}
    unknown = [name for name in request.columns if name not in waiting]
    if unknown:
        there = ", ".join(waiting) or "none"
        raise InputInvalid(
            f"No new column {', '.join(map(shown, unknown))} of graph {shown(graph.slug)} waits.",
            fix=f"Waiting by its last cycle, as TABLE.COLUMN: {there}.",
        )
    chosen = [waiting[name] for name in request.columns] or [
        column for column in waiting.values() if request.ignore or column.problem is None
    ]
    if request.ignore:
        done = await _ignore(services.maps, options.map, chosen, actor)
    else:
        done = await take_columns(services.maps, options.map, target, chosen, actor)
    if done.problems and not done.columns:
        raise InputInvalid(
            " ".join(f"{name} was not taken: {why}" for name, why in done.problems.items()),
            fix=f"Or leave it alone: `syncline map ignore {graph.slug} {next(iter(done.problems))}`.",
        )
    return ColumnsDecided(
        map=options.map,
        version=None if done.stored is None else done.stored.version,
        columns=tuple(map(label, done.columns)),
        graphs=tuple(await graphs_of_map(services.graphs, options.map)),
    )


async def _ignore(maps: MapRepository, name: str, columns: Sequence[NewColumn], actor: Actor) -> Taken:
    stored = await maps.get(name)
    document, left = stored.document, list[NewColumn]()
    for column in columns:
        if not _is_read(document, column):
            document = with_ignored(document, column.table, column.column)
            left.append(column)
    if not left:
        return Taken()
    put = await maps.put(name, document, hash=_hash(document), actor=actor, after=stored.version)
    return Taken(stored=put.stored, columns=tuple(left))


def _hash(document: str) -> str:
    return map_hash(read_map(document, source="The next version"))


def _is_read(document: str, column: NewColumn) -> bool:
    """Return whether a map names the column by now, or lacks the table."""
    for table in read_map(document, source="The newest version"):
        if table.name == column.table:
            return column.column in {*source_names(table), *table.ignored}
    return True


_WITHOUT_LENGTH: Final[Collection[str]] = ("character varying", "numeric", "bit varying", "varbit")


def _map_type(type_: str) -> str:
    """Return the type by which a map copies a column: a limit stays the target's, and moves with it."""
    base = re.sub(r"\([^)]*\)", "", type_)
    if base.startswith("character(") or base == "character":
        return "text"
    return base if base in _WITHOUT_LENGTH or base == type_ else type_


async def _add_column(target: GraphSchema, column: NewColumn) -> str | None:
    """Add a nullable column to a target table unless it is there; return why that is not possible."""
    table = f"{quoted(target.schema)}.{quoted(column.table)}"
    add = f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {quoted(column.column)} {column.type}"
    async with target.store.driver() as connection:
        owner = await connection.fetchrow(sql("column_owner"), table, target.store.owner_role, column.column)
        if owner is None:
            return f"The graph-db has no table {target.schema}.{column.table}."
        if owner["there"]:
            # A type of a schema has another name from there.
            if owner["type"] == column.type or "." in owner["type"]:
                return None
            return f"{target.schema}.{column.table}.{column.column} is there, with type {owner['type']}."
        if owner["acting"] is None:
            return (
                f"Role '{owner['role']}' may not alter {target.schema}.{column.table}, which belongs to "
                f"'{owner['owner']}': run `{add};` as that role, or "
                f"`GRANT {quoted(owner['owner'])} TO {quoted(owner['role'])};`."
            )
        try:
            async with connection.transaction():
                await connection.execute(SCHEMA_PATH, target.schema)
                await connection.execute(f"{_LOCK}; SET LOCAL ROLE {quoted(owner['acting'])}; {add}")
        except asyncpg.LockNotAvailableError:
            return f"{target.schema}.{column.table} is locked by another session: the next cycle tries again."
    return None
