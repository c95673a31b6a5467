"""The ear at one write-db: it waits for its turn, listens, and after whatever went wrong listens again."""

import asyncio
import time
from typing import Final

from syncline import metrics
from syncline.errors import SynclineError
from syncline.freshness.attention import Attention
from syncline.freshness.directory import Directory
from syncline.freshness.line import LEASE_SECONDS, Line
from syncline.freshness.pace import Pace
from syncline.freshness.starting import Runs
from syncline.logs import get_log
from syncline.provider import Meter
from syncline.stores.postgres import PostgresStore

__all__ = ["Ear"]

_STANDBY: Final = 3.0
_UNABLE: Final = 30.0
_LEAST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0


class Ear:
    """One store's listener. `name` is the same for all workers that take turns at it."""

    def __init__(
        self,
        store: PostgresStore,
        key: str | None,
        *,
        name: str,
        directory: Directory,
        pace: Pace,
        runs: Runs,
        meter: Meter,
    ) -> None:
        self._store = store
        self._key = key
        self._name = name
        self._directory = directory
        self._pace = pace
        self._runs = runs
        self._meter = meter
        self._told: str | None = None

    async def run(self) -> None:
        """Listen until cancelled."""
        self._measure(listening=False)
        pause = _LEAST_PAUSE
        while True:
            began = time.monotonic()
            try:
                async with self._store.alone(
                    "listener",
                    synchronous_commit="off",
                    lock_timeout="2000",
                    # The catalog's own operators, whatever schemas there are.
                    search_path="pg_catalog, pg_temp",
                ) as connection:
                    await self._listen(Line(connection, self._name))
            except SynclineError as error:
                self._tell(str(error))
            except Exception:
                # It must not take the worker with it: what is run by schedule goes on.
                get_log().exception("the listener failed", store=self._store.name)
            finally:
                self._measure(listening=False)
            pause = (
                _LEAST_PAUSE if time.monotonic() - began > LEASE_SECONDS else min(2 * pause, _LONGEST_PAUSE)
            )
            await asyncio.sleep(pause)

    async def _listen(self, line: Line) -> None:
        while (problem := await line.problem()) is not None:
            self._tell(problem)
            await line.wait_lost(_UNABLE)
        while not await line.take():
            await line.wait_lost(_STANDBY)
        attention = Attention(
            line,
            self._store,
            self._key,
            directory=self._directory,
            pace=self._pace,
            runs=self._runs,
            meter=self._meter,
            tell=self._tell,
        )
        await attention.begin()
        get_log().info("listening", store=self._store.name, graphs=len(self._directory.entries(self._key)))
        self._told = None
        self._measure(listening=True)
        await attention.pay()

    def _measure(self, *, listening: bool) -> None:
        metrics.LISTENING.set(self._meter, float(listening), store=self._store.name)

    def _tell(self, problem: str) -> None:
        """Log what is wrong; the same again is told more quietly."""
        log = get_log()
        tell = log.debug if self._told == problem else log.warning
        tell("not listening as it should be", store=self._store.name, problem=problem)
        self._told = problem
