"""The fault matrix: each phase of a run and each fault, on real parts, and what an operator sees meanwhile.

Two workers serve; the fault strikes the one that has the run. The graph runs every ten seconds. What is asserted
of every cell: the rows come, each as it was written and none announced twice; their vectors too; and nobody is told
that all is well by everything that there is to look at, while nothing moves.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
import pytest_asyncio

from syncline.control.graphs import Graph
from tests.acceptance.faults.blows import BLOWS, Struck
from tests.acceptance.faults.field import ROWS, Field, Seen
from tests.acceptance.faults.phases import PHASES
from tests.kit.pages import marked_lines, replace_lines

pytestmark = [pytest.mark.proof, pytest.mark.timeout(2400)]

_PATIENCE: Final = 150.0
"""Seconds after the end of a fault in which the rows have to be there."""
_LOOKS: Final = (4.0, 30.0)
"""Seconds after the fault at which an operator looks, if the rows are not there by then."""
_FAULTS: Final = {name: blow for name, blow in BLOWS.items() if os.environ.get("FAULT", "") in name}
"""All of them, or those whose names contain FAULT of the environment."""
_SILENT: Final = "nothing moves, and nothing says so"
_HEAD: Final = (
    "| Phase | Fault | Rows there after | `status` | `doctor` names | The run in the Web UI |",
    "|---|---|--:|---|---|---|",
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What came of one fault in one phase."""

    phase: str
    fault: str
    seconds: float
    """From the fault to all rows and vectors."""
    after_end: float | None
    """From the end of a fault that lasts; null if they were there before, or it does not last."""
    seen: Seen | None
    """By an operator who looked last while the rows were not there; null if they were there at once."""
    silent: bool
    """Whether half a minute later everything still looked well, though nothing had moved."""

    @property
    def line(self) -> str:
        """The cell as a line of the table."""
        took = f"{self.seconds:.0f} s"
        if self.after_end is not None:
            took = f"{self.after_end:.0f} s after its end"
        seen = self.seen
        told = ("", "", "") if seen is None else (seen.status, ", ".join(seen.doctor) or "nothing", seen.web)
        return f"| {self.phase} | {self.fault} | {took} | " + " | ".join(map(_cell, told)) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def field() -> AsyncIterator[Field]:
    # Not in pytest's folder: each session that starts closes that to the account that Postgres runs as.
    with TemporaryDirectory(prefix="syncline-faults-", ignore_cleanup_errors=True) as folder:
        async with Field.standing(Path(folder)) as standing:
            yield standing


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], str]]:
    """(phase, fault) -> its line. Those that were played and held are recorded, the others stay."""
    found: dict[tuple[str, str], str] = {}
    yield found
    if request.config.getoption("--record-proofs") is not None:
        page = Path(__file__).parents[2] / "docs" / "operations" / "faults.md"
        lines = dict[tuple[str, str], str]()
        for line in marked_lines(page, "proof:faults")[len(_HEAD) :]:
            _, phase, fault, *_ = line.split("|")
            lines[phase.strip(), fault.strip()] = line
        lines |= found
        kept = [lines[phase, fault] for phase in PHASES for fault in BLOWS if (phase, fault) in lines]
        replace_lines(page, "proof:faults", [*_HEAD, *kept])


@pytest.mark.parametrize("phase", PHASES)
async def test_rows_come_whatever_happens(
    phase: str, field: Field, table: dict[tuple[str, str], str]
) -> None:
    faults, lines = [], dict[tuple[str, str], str]()
    for number, fault in enumerate(_FAULTS):
        cell, wrong = await played(field, phase, fault, f"{phase.replace(' ', '-')}-{number}")
        lines[phase, fault] = cell.line
        print(cell.line, *wrong, flush=True)  # noqa: T201 # what is found in an hour is to be seen as it comes
        faults += [f"{phase}, {fault}: {problem}" for problem in wrong]
    # What stood still in silence is in the table too: its columns say that nobody was told.
    if all(fault.endswith(_SILENT) for fault in faults):
        table.update(lines)
    assert faults == []


async def played(field: Field, phase: str, fault: str, slug: str) -> tuple[Cell, list[str]]:
    """Play one cell on a graph of its own; return what came of it, and what is wrong with that."""
    await field.complete()
    graph = await field.add_graph(slug)
    blow, seen, wrong = BLOWS[fault], list[Seen](), list[str]()
    async with PHASES[phase](field, graph) as gate:
        struck = Struck(field=field, worker=await field.victim(slug), run=await field.run_of(slug))
        began = time.monotonic()
        arrival = asyncio.create_task(_there(field, graph))
        looking = asyncio.create_task(_looking(field, graph, seen))
        try:
            async with blow.happens(struck):
                await asyncio.sleep(0.5)
                gate.open()
                rest = began + blow.seconds - time.monotonic()
                await asyncio.wait([arrival], timeout=max(0.0, rest))
                if not blow.until_rows_move:
                    await asyncio.sleep(max(0.0, began + blow.seconds - time.monotonic()))
            ended = time.monotonic()
            await asyncio.wait([arrival], timeout=_PATIENCE)
        finally:
            for task in (arrival, looking):
                task.cancel()
            there, _ = await asyncio.gather(arrival, looking, return_exceptions=True)
    if isinstance(there, Exception):
        wrong.append(f"the stores could not be asked: {type(there).__name__}: {there}")
        arrived = time.monotonic()
    elif isinstance(there, BaseException):
        wrong.append(
            f"rows or vectors are missing after {_PATIENCE:g} s: {await field.landed(graph)} of {ROWS}"
        )
        arrived = time.monotonic()
    else:
        arrived = there
        # Whoever was thought dead may have something left to do.
        await asyncio.sleep(2)
        if different := await field.different(graph):
            wrong.append(f"{different} rows differ")
        if missing := await field.missing_vectors(graph):
            wrong.append(f"{missing} points are missing or too many")
        if (announced := field.announced.get(slug, 0)) != ROWS:
            wrong.append(f"{announced} rows announced, {ROWS} written")
    silent = len(seen) == len(_LOOKS) and seen[-1].silent
    if silent:
        wrong.append(_SILENT)
    await field.archive(graph)
    return (
        Cell(
            phase=phase,
            fault=fault,
            seconds=arrived - began,
            after_end=arrived - ended if blow.seconds and arrived > ended else None,
            seen=seen[-1] if seen else None,
            silent=silent,
        ),
        wrong,
    )


async def _there(field: Field, graph: Graph) -> float:
    """Return when all rows and vectors were there."""
    while await field.landed(graph) < ROWS or await field.missing_vectors(graph):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    return time.monotonic()


async def _looking(field: Field, graph: Graph, seen: list[Seen]) -> None:
    """Look as an operator does, at some moments."""
    began = time.monotonic()
    for moment in _LOOKS:
        await asyncio.sleep(began + moment - time.monotonic())
        look = await field.look(graph.slug)
        if await field.landed(graph) < ROWS or await field.missing_vectors(graph):
            seen.append(look)
