"""A pooler between the product and its Postgres: session mode works, no other mode is used."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from syncline.stores.postgres import PostgresStore

if TYPE_CHECKING:
    from conftest import Pooler


@pytest.mark.parametrize("pool_size", [1, 2, 5])
async def test_session_mode_with_defaults(
    pooler: "Callable[..., Pooler]", new_database: Callable[..., str], pool_size: int
) -> None:
    """A pooler that assigns sessions takes our connections as it is installed."""
    dsn = pooler("session", pool_size=pool_size).through(new_database())
    store = PostgresStore("write", SecretStr(dsn), pool_size=1, application_name="syncline-test")
    async with store.driver() as connection:
        assert await connection.fetchval("SELECT current_setting('application_name')") == "syncline-test"
    await store.close()
