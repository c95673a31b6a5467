"""Readers of a graph in processes of their own, by schedule: how many reads they did, and how long each one took.

They are open loop: a read is due whether or not the one before has come back, and its time counts from when it was
due. So a pause shows in every read that it held up. `python -m tests.kit.readers SPEC` is one such process.
"""

import asyncio
import itertools
import json
import random
import sys
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import asyncpg

__all__ = ["Read", "ReadFigures", "reading"]

ROOT: Final = Path(__file__).parents[2]
_LOST: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


@dataclass(frozen=True, kw_only=True)
class Read:
    """A query by one key, of which there is always a row: `prefix` and a number from 1 to `keys`."""

    sql: str
    prefix: str
    keys: int


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What one process does, as it is told on its command line."""

    dsn: str
    reads: Sequence[Read]
    rate: float
    """Reads that are due in a second."""
    connections: int
    seed: int
    times: str
    """The file that it writes when each read was due and done, by the clock that all processes share."""


@dataclass
class ReadFigures:
    """What all readers together did; complete once they have ended."""

    offered: float
    """Reads that were due in a second."""
    reads: int = 0
    seconds: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)
    """Class of an error -> how many reads failed by it."""
    missing: int = 0
    """Reads that found no row."""
    waits: Sequence[float] = ()
    """Seconds from when a read was due until it was done, the shortest first."""
    gap: float = 0.0
    """The longest time in which no read was done."""

    @property
    def reached(self) -> float:
        """Reads that were done in a second."""
        return self.reads / self.seconds if self.seconds else 0.0

    def within(self, share: float) -> float:
        """Return the seconds within which this share of the reads was done."""
        return self.waits[min(len(self.waits) - 1, int(share * len(self.waits)))] if self.waits else 0.0

    def count(self, times: Sequence[tuple[float, float]]) -> None:
        """Take what was noted of each read: when it was due, when it was done."""
        done = sorted(end for _, end in times)
        self.reads = len(times)
        self.waits = sorted(end - due for due, end in times)
        if times:
            self.seconds = done[-1] - min(due for due, _ in times)
            self.gap = max((after - before for before, after in itertools.pairwise(done)), default=0.0)


@asynccontextmanager
async def reading(
    dsn: str, reads: Sequence[Read], folder: Path, *, rate: float, processes: int = 2, connections: int = 8
) -> AsyncIterator[ReadFigures]:
    """Have processes read, `rate` times a second together, until the end; yield figures that are complete then."""
    figures = ReadFigures(offered=rate)
    specs = [
        Spec(
            dsn=dsn,
            reads=reads,
            rate=rate / processes,
            connections=connections,
            seed=number,
            times=str(folder / f"reads{number}"),
        )
        for number in range(processes)
    ]
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.kit.readers",
            json.dumps(asdict(spec)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        for spec in specs
    ]
    try:
        for process in started:
            if process.stdout is None or await process.stdout.readline() != b"ready\n":
                raise RuntimeError("a reader did not start")
        yield figures
    finally:
        # Each ends when its standard input does, also if this process dies.
        for process in started:
            if process.stdin is not None:
                process.stdin.close()
        answers = [(await process.communicate())[0] for process in started]
    times: list[tuple[float, float]] = []
    for spec, answer in zip(specs, answers, strict=True):
        told = json.loads(answer)
        figures.failed.update(told["failed"])
        figures.missing += told["missing"]
        times += _times(Path(spec.times))
    figures.count(times)


def _times(path: Path) -> Iterator[tuple[float, float]]:
    noted = array("d")
    noted.frombytes(path.read_bytes())
    yield from zip(noted[::2], noted[1::2], strict=True)


class _Reader:
    """The reads of one process."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._chosen = random.Random(spec.seed)
        self._numbers = itertools.count()
        self._begun = 0.0
        self._stopped = False
        self._times = array("d")
        self._failed: Counter[str] = Counter()
        self._missing = 0

    async def run(self) -> Mapping[str, object]:
        """Read until standard input ends; return failures and what was missing."""
        opened = [await self._connected() for _ in range(self._spec.connections)]
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        self._begun = time.monotonic()
        tasks = [asyncio.create_task(self._read(*each)) for each in opened]
        await asyncio.to_thread(sys.stdin.buffer.read)
        self._stopped = True
        await asyncio.gather(*tasks)
        return {"failed": self._failed, "missing": self._missing}

    def keep(self) -> None:
        """Write down when each read was due and done."""
        Path(self._spec.times).write_bytes(self._times.tobytes())

    async def _connected(
        self,
    ) -> tuple[asyncpg.Connection, Sequence[asyncpg.prepared_stmt.PreparedStatement]]:
        connection = await asyncpg.connect(self._spec.dsn)
        return connection, [await connection.prepare(read.sql) for read in self._spec.reads]

    async def _read(
        self,
        connection: asyncpg.Connection,
        statements: Sequence[asyncpg.prepared_stmt.PreparedStatement],
    ) -> None:
        """Take the next read that is due, again and again: whoever is free has it."""
        spec = self._spec
        while True:
            number = next(self._numbers)
            due = self._begun + number / spec.rate
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            if self._stopped:
                await connection.close()
                return
            which = number % len(spec.reads)
            read = spec.reads[which]
            key = f"{read.prefix}{self._chosen.randint(1, read.keys)}"
            try:
                found = await statements[which].fetchrow(key)
                self._missing += found is None
            except _LOST as error:
                self._failed[type(error).__name__] += 1
                if connection.is_closed():
                    connection, statements = await self._connected()
            self._times.extend((due, time.monotonic()))


def _spec(text: str) -> Spec:
    told = json.loads(text)
    return Spec(**{**told, "reads": [Read(**read) for read in told["reads"]]})


def main() -> None:
    """Be one of the processes."""
    reader = _Reader(_spec(sys.argv[1]))
    told = asyncio.run(reader.run())
    reader.keep()
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
