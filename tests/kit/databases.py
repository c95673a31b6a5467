"""Statements for a database that is named by its connection string."""

import asyncpg
from pydantic import SecretStr

__all__ = ["execute", "rows"]


async def execute(dsn: SecretStr | str, script: str) -> None:
    """Run a script in a session of its own."""
    connection = await _connected(dsn)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


async def rows(dsn: SecretStr | str, sql: str) -> list[tuple[object, ...]]:
    """Return what a query finds, in a session of its own."""
    connection = await _connected(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def _connected(dsn: SecretStr | str) -> asyncpg.Connection:
    return await asyncpg.connect(dsn if isinstance(dsn, str) else dsn.get_secret_value())
