"""Providers that do what no provider may, as a distribution `zoo` would ship them."""

import asyncio
import threading
import time

from pydantic import BaseModel, model_validator

from syncline.messages.sync import CycleStatus, SyncResult, TableProgress
from syncline.provider import SyncContext, SyncProvider

released = threading.Event()
"""Whoever blocks ends when this is set."""
begun = threading.Event()
"""Set once a cycle of `zoo-stubborn` is at work."""
kept: list[object] = []


class Provider(SyncProvider):
    """A good one."""

    version = "1.0"
    api_version = 1

    async def initialize(self, services: object) -> None: ...

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        return SyncResult(status=CycleStatus.DRAINED)

    async def close(self) -> None: ...


class Good(Provider):
    id = "zoo-good"


class Faulty(Provider):
    id = "zoo-faulty"

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        return len(context.graph.slug) + "rows"  # type: ignore[operator,no-any-return]


class Unready(Provider):
    id = "zoo-unready"

    async def initialize(self, services: object) -> None:
        raise OSError("no licence")


class Hanging(Provider):
    id = "zoo-hanging"

    async def initialize(self, services: object) -> None:
        await asyncio.Event().wait()


class Endless(Provider):
    id = "zoo-endless"

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Sleeper(Provider):
    id = "zoo-sleeper"

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        while not released.is_set():
            time.sleep(0.05)  # noqa: ASYNC251
        return await super().sync_cycle(context)


class Spinner(Provider):
    id = "zoo-spinner"

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        self._count()
        return await super().sync_cycle(context)

    def _count(self) -> None:
        number = 0
        while not released.is_set():
            number += 1


class Wrong(Provider):
    id = "zoo-wrong"

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        return {"rows": 1}  # type: ignore[return-value]


class Malformed(Provider):
    id = "zoo-malformed"

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        return SyncResult.model_construct(status="fine")


class Negative(Provider):
    id = "zoo-negative"

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        table = TableProgress(table="nodes", rows=-1)
        return SyncResult(status=CycleStatus.DRAINED, tables=(table,))


class Storm(Provider):
    id = "zoo-storm"
    weather = (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, RecursionError)

    def __init__(self) -> None:
        self.cycles = 0

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        self.cycles += 1
        if self.cycles <= len(self.weather):
            raise self.weather[self.cycles - 1](f"number {self.cycles}")
        # Another task of its own, which nobody awaits.
        beside = asyncio.create_task(self._exit())
        while not beside.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        beside.exception()  # or it would be told of when it is collected as garbage
        return await super().sync_cycle(context)

    async def _exit(self) -> None:
        raise SystemExit(3)


class Stubborn(Provider):
    id = "zoo-stubborn"

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        begun.set()
        while not released.is_set():
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                continue
        return await super().sync_cycle(context)


class Leaky(Provider):
    id = "zoo-leaky"

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        taken, also_taken = context.target.store.driver(), context.write.store.begin()
        kept.extend([taken, also_taken])
        await (await taken.__aenter__()).execute("BEGIN")
        await (await also_taken.__aenter__()).exec_driver_sql("SELECT 1")
        return await super().sync_cycle(context)


class Sweeping(Provider):
    id = "zoo-sweeping"

    def __init__(self) -> None:
        self.cycles = 0

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        self.cycles += 1
        if self.cycles == 1:
            for task in asyncio.all_tasks():
                task.cancel()
            await asyncio.sleep(0)
        return await super().sync_cycle(context)


class CarelessOptions(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _look(cls, options: dict[str, str]) -> object:
        raise TypeError(f"cannot use {options}")


class Careless(Provider):
    id = "zoo-careless"
    options_model = CarelessOptions


class PonderousOptions(BaseModel):
    @model_validator(mode="after")
    def _ponder(self) -> "PonderousOptions":
        released.wait(30)
        return self


class Ponderous(Provider):
    id = "zoo-ponderous"
    options_model = PonderousOptions


class Clinging(Provider):
    id = "zoo-clinging"

    async def close(self) -> None:
        raise OSError("the file is open")


class Old(Provider):
    id = "zoo-old"
    api_version = 0
