"""What happens to a run: to its worker, to the network, to Temporal, or by an operator's hand."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from syncline.temporal.runs import ListedRun
from tests.acceptance.faults.field import Field, Member

__all__ = ["BLOWS", "Blow", "Struck"]


@dataclass(frozen=True, kw_only=True)
class Struck:
    """Whom it strikes."""

    field: Field
    worker: Member
    run: ListedRun


@dataclass(frozen=True, kw_only=True)
class Blow:
    """One fault. It lasts as long as the context, `seconds` at most, or until the rows are there."""

    happens: Callable[[Struck], AbstractAsyncContextManager[None]]
    seconds: float = 0.0
    """How long it lasts; 0 for what is over as soon as it has happened."""
    until_rows_move: bool = False
    """Whether it ends early once the rows are there: somebody else has brought them."""


@asynccontextmanager
async def _killed(struck: Struck) -> AsyncIterator[None]:
    os.kill(struck.worker.pid, signal.SIGKILL)
    yield


@asynccontextmanager
async def _frozen(struck: Struck) -> AsyncIterator[None]:
    os.kill(struck.worker.pid, signal.SIGSTOP)
    yield
    os.kill(struck.worker.pid, signal.SIGCONT)


@asynccontextmanager
async def _temporal_away(struck: Struck) -> AsyncIterator[None]:
    await struck.field.temporal_away()
    yield
    await struck.field.temporal_back()


def _cut(name: str) -> Callable[[Struck], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def cut(struck: Struck) -> AsyncIterator[None]:
        wire = struck.worker.temporal if name == "temporal" else struck.field.cables[name]
        wire.cut()
        yield
        wire.mend()

    return cut


def _by_hand(*words: str) -> Callable[[Struck], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def done(struck: Struck) -> AsyncIterator[None]:
        run = ["--workflow-id", struck.run.workflow_id, "--run-id", struck.run.run_id]
        command = [Path(sys.executable).with_name("temporal"), "workflow", *words, *run]
        address = struck.field.declared.address
        await asyncio.to_thread(
            subprocess.run, [*command, "--address", address], check=True, capture_output=True, timeout=60
        )
        yield

    return done


BLOWS: dict[str, Blow] = {
    "worker killed (kill -9)": Blow(happens=_killed),
    "worker frozen (SIGSTOP), then thawed": Blow(happens=_frozen, seconds=90, until_rows_move=True),
    "Temporal away for 15 s": Blow(happens=_temporal_away, seconds=15),
    "worker cut off from Temporal": Blow(happens=_cut("temporal"), seconds=60, until_rows_move=True),
    "workers cut off from the write-db for 15 s": Blow(happens=_cut("write"), seconds=15),
    "workers cut off from the graph-db for 15 s": Blow(happens=_cut("graph"), seconds=15),
    "workers cut off from Qdrant for 15 s": Blow(happens=_cut("qdrant"), seconds=15),
    "run cancelled": Blow(happens=_by_hand("cancel")),
    "run terminated": Blow(happens=_by_hand("terminate", "--reason", "fault matrix")),
    "run reset": Blow(happens=_by_hand("reset", "--type", "FirstWorkflowTask", "--reason", "fault matrix")),
}
