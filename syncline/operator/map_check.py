"""Map check: compares a map with the tables of both databases, and says every misfit at once."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, Literal

import asyncpg
from pydantic import BaseModel, ConfigDict

from syncline.capture.install.catalog import read_catalog
from syncline.capture.install.checks import check_source, check_target, types_of, uncaptured
from syncline.capture.install.install import refused_conditions
from syncline.capture.install.misfit import Misfit
from syncline.engine.became import Looked, recognised
from syncline.engine.known_columns import KnownTable, read_known
from syncline.engine.render.fragments import merged_values
from syncline.engine.render.listing import Listing
from syncline.engine.render.stage import stage_definitions
from syncline.engine.schema_transaction import SCHEMA_PATH
from syncline.maps.document import line_of
from syncline.maps.ids import IdRule
from syncline.maps.into import without_row
from syncline.maps.schema_map import SchemaMap
from syncline.maps.table_map import TableMap
from syncline.masking import error_text
from syncline.operator.map_catalog import MapTable, read_map_tables
from syncline.operator.map_fit import advice, unwritable
from syncline.operator.map_strangers import strange_rows
from syncline.operator.schema import sql
from syncline.operator.target_tables import target_tables
from syncline.provider import GraphSchema, StoreRole
from syncline.rights.missing import Missing, missing_rights
from syncline.rights.needed import CHANGE, READ, Right
from syncline.sql import quoted

__all__ = ["MapCheck", "MapMisfit", "check_map"]

_STAGE: Final = "map_check_stage"
_STATE: Final = "sync_state"


class MapMisfit(BaseModel):
    """One thing that does not fit, and what mends it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: StoreRole
    """Where it was found."""
    weight: Literal["error", "advice"]
    """`error`: the table cannot be synced. `advice`: it can, with what the problem says."""
    table: str
    """The table map; empty if it is about all of them."""
    path: str
    """The key of the document that leads to it, such as tables.facts.columns.uri."""
    line: int | None = None
    """Its line, if the document was given."""
    problem: str
    statement: str | None = None
    """The SQL that mends it in that database; None: the map has to be changed, or what the problem says."""


class MapCheck(BaseModel):
    """What of both databases does not fit a map."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    map: str
    tables: int
    misfits: tuple[MapMisfit, ...]
    write: str
    """Host and database of the write-db."""
    graph: str
    """Host and database of the graph-db."""

    @property
    def fits(self) -> bool:
        """Whether every table can be synced."""
        return not any(misfit.weight == "error" for misfit in self.misfits)


async def check_map(
    schema_map: SchemaMap, write: GraphSchema, graph: GraphSchema, *, text: str | None = None
) -> MapCheck:
    """Return everything in which the tables of both databases do not fit the map. It changes nothing.

    `text` is the map's document, for lines.
    """
    types = types_of(schema_map)
    async with write.store.driver() as connection:
        written = await read_catalog(connection, write.schema, types=types)
        there = [table for table in schema_map if table.source in written.tables]
        refused = await refused_conditions(connection, write.schema, there)
        sources = await read_map_tables(connection, write.schema, [table.source for table in schema_map])
        unread = [
            _lacking(missing, write)
            for missing in await missing_rights(connection, _read(write.schema, schema_map))
        ]
    async with graph.store.driver() as connection:
        read = await read_catalog(connection, graph.schema, types=types)
        names = schema_map.filled
        targets = await read_map_tables(connection, graph.schema, names)
        unwritten = [
            _lacking(missing, graph)
            for missing in await missing_rights(connection, _change(graph.schema, names))
        ]
        wrong: list[Misfit] = []
        kinds: dict[tuple[str, str], str] = {}
        strange: list[Misfit] = []
        known: dict[str, KnownTable] = {}
        if _STATE in read.tables:
            # A role without rights on the bookkeeping is told of a missing column, not what became of it.
            with suppress(asyncpg.InsufficientPrivilegeError):
                known = await read_known(connection, graph.schema)
            wrong, kinds = await _refused_sql(connection, graph.schema, schema_map, targets)
            strange = [one async for one in strange_rows(connection, graph.schema, schema_map, targets)]
    by_name = {table.name: table for table in schema_map}

    def became(misfit: str, *, target: bool) -> Misfit:
        found = _misfit(misfit)
        if found.table not in by_name:
            return found
        table, was = by_name[found.table], known.get(found.table, KnownTable())
        here, there = written.tables.get(table.source), read.tables.get(table.target)
        if target:
            looked = Looked(table=table, catalog=read, target=True, known=was.target, other=here)
        else:
            looked = Looked(table=table, catalog=written, target=False, known=was.source, other=there)
        return _misfit(recognised(found, looked))

    unfit = [became(misfit, target=False) for misfit in check_source(written, schema_map)]
    at_fault = {misfit.table for misfit in unfit if isinstance(misfit, Misfit)}
    uncaught = uncaptured(written, [table for table in there if table.name not in at_fault])
    tables = target_tables(schema_map, graph.schema, types=kinds)
    unfilled = [
        Misfit(misfit, table=misfit.table, path=misfit.path, statement=_made(misfit, tables))
        for misfit in (became(each, target=True) for each in check_target(read, schema_map))
    ]
    found: list[MapMisfit] = []
    found += _reported([*unread, *unfit, *refused, *uncaught], "write", "error", text)
    stateless = [] if _STATE in read.tables else [Misfit(_stateless(graph.schema))]
    errors = [
        *stateless,
        *unwritten,
        *unfilled,
        *unwritable(schema_map, graph.schema, targets),
        *wrong,
        *strange,
    ]
    found += _reported(errors, "graph", "error", text)
    found += _reported(advice(schema_map, graph.schema, sources, targets), "graph", "advice", text)
    return MapCheck(
        map=schema_map.name,
        tables=len(schema_map.tables),
        misfits=tuple(found),
        write=write.store.place,
        graph=graph.store.place,
    )


def _reported(
    misfits: Iterable[str], store: StoreRole, weight: Literal["error", "advice"], text: str | None
) -> Iterator[MapMisfit]:
    for misfit in map(_misfit, misfits):
        path = ("tables", misfit.table, *misfit.path) if misfit.table else ()
        yield MapMisfit(
            store=store,
            weight=weight,
            table=misfit.table,
            path=".".join(path),
            line=None if text is None or not path else line_of(text, path),
            problem=str(misfit),
            statement=misfit.statement,
        )


def _stateless(schema: str) -> str:
    return f"Schema {schema} has no bookkeeping tables of the engine: `syncline graph add` makes them."


def _lacking(missing: Missing, there: GraphSchema) -> Misfit:
    return Misfit(f"Role {missing.role} lacks {missing} in {there.store.place}.", statement=missing.grant)


def _misfit(sentence: str) -> Misfit:
    return sentence if isinstance(sentence, Misfit) else Misfit(sentence)


def _made(misfit: Misfit, tables: dict[str, str]) -> str | None:
    """Return the statement of a misfit; for a table that is missing, the one that makes it."""
    return misfit.statement if misfit.missing is None else tables.get(misfit.missing, misfit.statement)


def _read(schema: str, schema_map: SchemaMap) -> Iterator[Right]:
    sources = tuple(table.source for table in schema_map)
    yield Right(kind="schema", schema=schema, privileges=("USAGE",), why="read the graph")
    yield Right(kind="table", schema=schema, names=sources, privileges=READ, why="read the captured tables")


def _change(schema: str, names: Sequence[str]) -> Iterator[Right]:
    yield Right(kind="schema", schema=schema, privileges=("USAGE",), why="write the graph")
    yield Right(
        kind="table", schema=schema, names=tuple(names), privileges=CHANGE, why="write the graph's rows"
    )


# The map's SQL ----------------------------------------------------------------------------------------------


async def _refused_sql(
    connection: asyncpg.Connection, schema: str, schema_map: SchemaMap, targets: dict[str, MapTable]
) -> tuple[list[Misfit], dict[tuple[str, str], str]]:
    """Return the expressions that Postgres rejects, and the types of those that it accepts.

    Only Postgres can parse them. They are prepared over the stage of a cycle, and not run.
    """
    wrong: list[Misfit] = []
    kinds: dict[tuple[str, str], str] = {}
    async with _undone(connection):
        await connection.execute(SCHEMA_PATH, schema)
        for table in schema_map:
            try:
                staged = [each async for each in _staged(connection, schema, schema_map, table, targets)]
            except asyncpg.PostgresError as error:
                said = f"The expressions of {table.name} could not be checked: {error_text(error)}."
                wrong.append(Misfit(said, table=table.name, path=("expressions",)))
                staged = []
            refused: set[tuple[str, ...]] = set()
            for path, statement, place in [*staged, *_of_rows(schema, table, targets)]:
                if path in refused:
                    continue
                try:
                    async with _undone(connection):
                        prepared = await connection.prepare(statement)
                        attributes = prepared.get_attributes()
                except asyncpg.PostgresError as error:
                    said = f"`{'.'.join(path)}` is refused: {error_text(error)}."
                    wrong.append(Misfit(said, table=table.name, path=path))
                    refused.add(path)
                    continue
                if attributes and place is not None:
                    kinds[place] = attributes[0].type.name
    return wrong, kinds


_Sql = tuple[tuple[str, ...], str, tuple[str, str] | None]
"""Path in the table map, statement, and the column whose type it shows."""


async def _staged(
    connection: asyncpg.Connection,
    schema: str,
    schema_map: SchemaMap,
    table: TableMap,
    targets: dict[str, MapTable],
) -> AsyncIterator[_Sql]:
    """Yield the statements of expressions over the stage, which is made for it; raise PostgresError."""
    # Where rows keep ids that they have, the stage does not make the expression's.
    by_expression = table.keeps_ids and table.id_rule is IdRule.EXPRESSION
    made_id = Listing(schema_map, table, _STAGE).made if by_expression else None
    plain = not (table.computed or table.otherwise) and all(column.copied for column in table.columns)
    plain = plain and not any(reference.stub for reference in table.references)
    if plain and made_id is None:
        return
    stage = quoted(f"{_STAGE} {table.name}"[:60])
    async with connection.transaction():
        await connection.execute(
            sql("map_stage", stage=stage, definitions=stage_definitions(schema_map, table))
        )
    if made_id is not None:
        parts = {"expression": made_id, "rows": f"pg_temp.{stage}", "alias": "s"}
        yield ("id", "expression"), sql("map_row_expression", **parts), None
    target = targets.get(table.target)
    values = merged_values(table)
    made = [column.name for column in table.columns if not column.copied]
    for column, value in (without_row(table) if table.otherwise else {}).items():
        yield ("otherwise", column), sql("map_value", expression=value), None
    for column in dict.fromkeys([*made, *table.expressions]):
        path = ("expressions" if column in table.expressions else "columns", column)
        parts = {"expression": values[column], "rows": f"pg_temp.{stage}", "alias": "s"}
        yield path, sql("map_row_expression", **parts), None
        if target is not None and target.stores and column in target.columns:
            place = f"{quoted(schema)}.{quoted(table.target)}"
            assignment = sql("map_assignment", **parts, table=place, column=quoted(column))
            yield path, assignment, None
            if path[0] == "expressions":
                yield path, sql("map_comparison", **parts, table=place, column=quoted(column)), None
        else:
            yield path, sql("map_expression", **parts), (table.name, column)
    for reference in table.references:
        types = {column.name: column.type for column in schema_map[reference.parent].columns}
        for column, value in (reference.stub or {}).items():
            place_in_map = ("references", reference.column, "stub", column)
            parts = {"expression": f"({value})::{types[column]}", "rows": f"pg_temp.{stage}", "alias": "s"}
            for statement in _filling(schema, targets.get(reference.parent), column, place_in_map, parts):
                yield statement


def _of_rows(schema: str, table: TableMap, targets: dict[str, MapTable]) -> Iterator[_Sql]:
    """Yield the statements of expressions over target rows."""
    if table.vector is not None and table.name in targets:
        rows = {"rows": f"{quoted(schema)}.{quoted(table.name)}", "alias": "t"}
        text = f"({table.vector.text})::text"
        yield ("vector", "text"), sql("map_row_expression", expression=text, **rows), None
        for name, expression in table.vector.payload.items():
            yield ("vector", "payload", name), sql("map_row_expression", expression=expression, **rows), None
    yield from _of_links(schema, table, targets)
    yield from _of_marks(schema, table, targets)
    for stat in table.stats.columns if table.stats else ():
        if stat.counted in targets:
            rows = {"rows": f"{quoted(schema)}.{quoted(stat.counted)}", "alias": "c"}
            place = (table.stats_place[0], stat.column)
            path = ("stats", "columns", stat.column)
            yield path, sql("map_expression", expression=stat.value, **rows), place


def _of_links(schema: str, table: TableMap, targets: dict[str, MapTable]) -> Iterator[_Sql]:
    """Yield the statements of further columns of link tables, over rows of their owner."""
    for links in table.links if table.name in targets else ():
        there = targets.get(links.table)
        for name, expression in links.columns.items():
            path = ("links", links.table, "columns", name)
            parts = {
                "expression": expression,
                "rows": f"{quoted(schema)}.{quoted(table.name)}",
                "alias": "t",
            }
            yield from _filling(schema, there, name, path, parts, made=(links.table, name))


def _of_marks(schema: str, table: TableMap, targets: dict[str, MapTable]) -> Iterator[_Sql]:
    """Yield the statements of marks, over the rows that are marked."""
    types = {column.name: column.type for column in table.columns}
    for name, expression in table.marked.items() if table.name in targets else ():
        place = f"{quoted(schema)}.{quoted(table.name)}"
        parts = {"expression": f"({expression})::{types[name]}", "rows": place, "alias": "t"}
        yield from _filling(schema, targets[table.name], name, ("marked", name), parts)


def _filling(
    schema: str,
    there: MapTable | None,
    column: str,
    path: tuple[str, ...],
    parts: dict[str, str],
    *,
    made: tuple[str, str] | None = None,
) -> Iterator[_Sql]:
    """Yield what checks a column's expression; `made` is the column whose type to note if it is not there."""
    yield path, sql("map_row_expression", **parts), None
    if there is not None and there.stores and column in there.columns:
        place = f"{quoted(schema)}.{quoted(there.name)}"
        yield path, sql("map_assignment", **parts, table=place, column=quoted(column)), None
    elif made is not None:
        yield path, sql("map_expression", **parts), made


@asynccontextmanager
async def _undone(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Enter a transaction, or a part of one, that is always undone."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()
