"""Preparation: calls a provider's optional `prepare` before its first cycle over a schema."""

from pydantic import BaseModel

from activities.isolation.limits import RunCycle
from syncline.messages.sync import SyncResult
from syncline.provider import SyncContext, SyncProvider, preparing

__all__ = ["Preparation"]


class Preparation:
    """What the providers of this process have prepared. A schema that was made again is another one."""

    def __init__(self) -> None:
        self._done: set[tuple[str, str, str, int, str]] = set()

    def first(self, provider: SyncProvider, options: BaseModel) -> RunCycle:
        """Return the provider's cycle; if it has something to prepare, with that before the first one.

        Its errors are the cycle's, and so are its limits. It is called again after a failure.
        """
        prepares = preparing(provider)
        if prepares is None:
            return provider.sync_cycle

        async def cycle(context: SyncContext) -> SyncResult:
            target = context.target
            async with target.store.driver() as connection:
                # Null for a schema that is not there yet: then it is asked again in the next cycle.
                schema = await connection.fetchval(
                    "SELECT oid::bigint FROM pg_catalog.pg_namespace WHERE nspname = $1", target.schema
                )
            key = provider.id, provider.version, target.store.name, schema or 0, options.model_dump_json()
            if key not in self._done:
                await prepares.prepare(context)
                if schema is not None:
                    self._done.add(key)
            return await provider.sync_cycle(context)

        return cycle
