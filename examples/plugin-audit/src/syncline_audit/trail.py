"""The audit trail of one graph: written from the engine's state, which commits together with the rows."""

from functools import cache
from importlib.resources import files

from syncline.provider import GraphSchema

__all__ = ["record"]


async def record(target: GraphSchema, *, keep_days: int | None = None) -> None:
    """Write down what the graph's latest run has changed so far; once or twice, it is the same.

    What is older than `keep_days` goes, if there is something to add.
    """
    async with target.store.driver() as connection, connection.transaction():
        # For this transaction alone: the connection is shared with other graphs.
        await connection.execute("SELECT set_config('search_path', quote_ident($1), true)", target.schema)
        if await connection.fetchval("SELECT to_regclass('audit_trail') IS NULL"):
            await connection.execute(_sql("create"))
        added = await connection.fetchval(_sql("record"))
        if added and keep_days is not None:
            await connection.execute(_sql("forget"), keep_days)


@cache
def _sql(name: str) -> str:
    return files("syncline_audit").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
