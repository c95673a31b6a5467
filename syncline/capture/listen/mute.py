"""Mute: a lingering cycle looks for changes itself, so its writers need not notify meanwhile."""

from syncline import names
from syncline.capture.install.steps import QUIET, STATE, qualified
from syncline.sql import literal, statements_of
from syncline.stores.horizon import HORIZON, NEXT_TRANSACTION
from syncline.stores.postgres import PostgresStore
from syncline.stores.tenants import writing

__all__ = ["announce", "mute", "unmute"]

_sql = statements_of("syncline.capture.listen")


async def mute(store: PostgresStore, schema: str, seconds: float) -> bool:
    """Mute the schema's writers for `seconds` from now; return whether they are.

    Not if they do not notify anyway, or several deployments listen: it holds for all. Raise StoreError, as
    when the schema does not notify.
    """
    state, quiet = qualified(schema, STATE), literal(qualified(schema, QUIET))
    async with store.driver() as connection, writing(connection, [state], first=_ASYNCHRONOUS):
        return bool(await connection.fetchval(_sql("mute", state=state, quiet=quiet), seconds))


async def unmute(store: PostgresStore, schema: str) -> int:
    """Let the schema's writers notify again; return the transaction below which any muted one began."""
    state, quiet = qualified(schema, STATE), literal(qualified(schema, QUIET))
    async with store.driver() as connection:
        async with writing(connection, [state], first=_ASYNCHRONOUS):
            await connection.execute(_sql("unmute", state=state, quiet=quiet))
        row = await connection.fetchrow(_sql("snapshot", horizon=HORIZON, next=NEXT_TRANSACTION))
    return int(row["xmax"])


async def announce(store: PostgresStore, schema: str, below: int) -> None:
    """Notify the listener of changes by transactions below this one, as their writers would have."""
    async with store.driver() as connection:
        await connection.execute("SELECT pg_notify($1, $2)", names.WRITE_CHANNEL, f"{below - 1} {schema}")


# The mute ends by itself; a crash of the server may lose it.
_ASYNCHRONOUS = "SET LOCAL synchronous_commit = off"
