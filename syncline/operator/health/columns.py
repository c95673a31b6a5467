"""Check of a graph-db: columns that were added to sources and that nobody has decided about."""

import json
from collections.abc import Mapping, Sequence

from syncline.control.graphs import Graph
from syncline.control.maps import NewColumns, map_options
from syncline.messages.sync import NewColumn
from syncline.operator.health.check import Check, CheckStatus, listed
from syncline.operator.new_columns import ways_out
from syncline.operator.schema import sql
from syncline.quoting import counted
from syncline.run_text import new_column
from syncline.sql import literal, quoted
from syncline.stores.postgres import PostgresStore

__all__ = ["check_new_columns"]


async def check_new_columns(name: str, store: PostgresStore, graphs: Mapping[str, Graph]) -> Sequence[Check]:
    """Return the check of the columns that the last cycles of graphs, by schema, found; none without any."""
    asked: list[str] = []
    kept_out: list[str] = []
    async with store.driver() as connection:
        schemas = [row["schema"] for row in await connection.fetch(sql("columns_kept"), list(graphs))]
        if not schemas:
            return []
        each = [sql("columns_waiting", name=literal(schema), schema=quoted(schema)) for schema in schemas]
        rows = await connection.fetch(" UNION ALL ".join(each))
    for row in rows:
        graph = graphs[row["schema"]]
        options = map_options(graph.composition)
        for stored in json.loads(row["new"]):
            column = ways_out(NewColumn.model_validate(stored), graph.slug, options)
            if options.new_columns is NewColumns.FREEZE:
                kept_out.append(f"{column.source}.{column.column} of graph {graph.slug}")
            else:
                asked.append(new_column(column))
    checks = []
    if asked:
        verb = "was added to a source and is" if len(asked) == 1 else "were added to sources and are"
        found = f"{counted(len(asked), 'column')} {verb} not synced"
        checks.append(Check(name=name, status=CheckStatus.WARN, found=found, fix=listed(asked, between=" ")))
    if kept_out:
        checks.append(Check(name=name, found=f"added and kept out by policy freeze: {listed(kept_out)}"))
    return checks
