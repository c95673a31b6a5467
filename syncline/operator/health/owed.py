"""Check of a graph-db: foreign keys and indexes that first loads have put off."""

from collections.abc import Mapping, Sequence

from syncline.control.graphs import Graph
from syncline.engine.owed import COUNTS, read_owed
from syncline.operator.health.asking import asked_of_each
from syncline.operator.health.check import Check, CheckStatus, listed
from syncline.operator.schema import sql
from syncline.run_text import keys_or_indexes, owed_sentences
from syncline.sql import literal, quoted
from syncline.stores.postgres import PostgresStore

__all__ = ["check_owed"]


async def check_owed(name: str, store: PostgresStore, graphs: Mapping[str, Graph]) -> Sequence[Check]:
    """Return a check for each graph, by schema, that owes keys or indexes; none if no graph does."""
    checks: list[Check] = []
    async with store.driver() as connection:
        rows = await asked_of_each(
            connection,
            graphs,
            "sync_owed",
            lambda schema: sql("owed_any", name=literal(schema), schema=quoted(schema)),
        )
        for schema in [row["schema"] for row in rows]:
            owed = [each.reported for each in await read_owed(connection, schema)]
            if not owed:
                continue
            refused = [each for each in owed if each.problem is not None]
            number = sum(each.kind != COUNTS for each in owed)
            what = keys_or_indexes(number) if number else "counts"
            found = f"graph {graphs[schema].slug}: {what} put off by a first load"
            if refused:
                status, fix = CheckStatus.FAIL, listed(owed_sentences(refused), between=" ")
            else:
                status, fix = CheckStatus.WARN, "The cycle that ends the load puts them back."
            checks.append(Check(name=name, status=status, found=found, fix=fix))
    return checks
