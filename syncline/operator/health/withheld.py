"""Check of a graph-db: rows that the write-db turned out not to have, too many to leave unasked."""

from collections.abc import Mapping, Sequence

from syncline.control.graphs import Graph
from syncline.operator.health.asking import asked_of_each
from syncline.operator.health.check import Check, CheckStatus
from syncline.operator.schema import sql
from syncline.quoting import counted
from syncline.sql import literal, quoted
from syncline.stores.postgres import PostgresStore

__all__ = ["check_withheld"]


async def check_withheld(name: str, store: PostgresStore, graphs: Mapping[str, Graph]) -> Sequence[Check]:
    """Return a check for each graph, by schema, whose removals are withheld; none if no graph's are."""
    checks: list[Check] = []
    async with store.driver() as connection:
        rows = await asked_of_each(
            connection,
            graphs,
            "sync_comparison",
            lambda schema: sql(
                "withheld_any", name=literal(schema), withheld=sql("withheld", schema=quoted(schema))
            ),
        )
    for row in rows:
        slug = graphs[row["schema"]].slug
        found = f"graph {slug}: {counted(row['rows'], 'row')} of {row['tables']} not in the write-db stay"
        fix = f"If the write-db is right: `syncline verify {slug} --repair --reason …` removes them."
        checks.append(Check(name=name, status=CheckStatus.FAIL, found=found, fix=fix))
    return checks
