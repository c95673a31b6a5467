"""What fleets of graphs need: `python -m benchmarks.sizing`, a simulation over the figures of `make bench-fleet`.

The cost of a run is measured; what many of them need is computed from it, and how long runs wait in a worker is
simulated, hour by simulated hour. The tables go to the screen and into docs/sizing.md.
"""

import argparse
import heapq
import math
import random
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.engine import ROOT
from tests.kit.pages import replace_between

REPORT: Final = ROOT / "docs" / "sizing.md"
FIGURES: Final = ROOT / "docs" / "performance.md"
FLEETS: Final = (100, 1_000, 10_000, 100_000)
LOADS: Final = (0.3, 0.5, 0.7, 0.8, 0.9)
STAGES: Final = 4
"""A run's worker CPU comes in so many pieces: its workflow tasks and its two activities."""
AWAY: Final = 0.01
"""Seconds that a run is away between two pieces, at the server or at a database."""
BUSY: Final = 0.7
"""Load of a core up to which runs hardly wait, by the first table."""
KILOBYTES_A_RUN: Final = 6.8
SLOWEST: Final = 15.0
"""Minutes between two runs of an idle graph under adaptive cadence."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What one run costs, measured on two cores: seconds of CPU."""

    worker: float
    server: float
    postgres: float
    connections: int

    @classmethod
    def measured(cls) -> "Costs":
        """Return those of the fleet whose graphs run each minute, from the page of figures."""
        text = FIGURES.read_text().partition("<!-- benchmark:fleet-minute -->")[2]

        def number(line: str) -> float:
            found = re.search(rf"\| {line}[^|]*\| ([\d.]+)", text)
            if found is None:
                raise SystemExit(f"docs/performance.md has no line '{line}': run `make bench-fleet` first.")
            return float(found[1])

        return cls(
            worker=number("Worker CPU per run") / 1000,
            server=number("Temporal dev server CPU per run") / 1000,
            postgres=number("PostgreSQL CPU per run") / 1000,
            connections=int(number("Postgres connections of the worker")),
        )


def simulated(costs: Costs, load: float, *, seconds: float = 3600, seed: int = 1) -> Sequence[float]:
    """Return how long each run took from when it was due, in one worker process at this load of its core.

    Half of the runs are due by the clock, each graph at a moment of its own; the others at random, as changes
    wake them. A piece of a run waits until those that were ready before it have had the core.
    """
    chance = random.Random(seed)
    per_second = load / costs.worker
    clocked = max(1, round(per_second * 30))
    due = [
        phase + minute * 60
        for phase in (chance.uniform(0, 60) for _ in range(clocked))
        for minute in range(int(seconds // 60))
    ]
    moment = 0.0
    while (moment := moment + chance.expovariate(per_second / 2)) < seconds:
        due.append(moment)
    ready = [(at, number, STAGES) for number, at in enumerate(due)]
    heapq.heapify(ready)
    free, took = 0.0, [0.0] * len(due)
    while ready:
        at, number, left = heapq.heappop(ready)
        # Pieces differ: most are short, a few twice as long.
        free = max(free, at) + chance.gammavariate(4, costs.worker / STAGES / 4)
        if left > 1:
            heapq.heappush(ready, (free + AWAY, number, left - 1))
        else:
            took[number] = free - due[number]
    return took


def waits(costs: Costs) -> Iterator[str]:
    """Yield the lines of the table of one worker process."""
    yield "| Load of its core | Runs a minute | A run takes: median | p99 | Longest in an hour |"
    yield "|--:|--:|--:|--:|--:|"
    for load in LOADS:
        took = simulated(costs, load)
        last = statistics.quantiles(took, n=100)[98]
        yield (
            f"| {load:.0%} | {load * 60 / costs.worker:,.0f} | {statistics.median(took):.2f} s | {last:.2f} s"
            f" | {max(took):.1f} s |"
        )


def fleets(costs: Costs, changing: float) -> Iterator[str]:
    """Yield the lines of the table of fleets; `changing` is the part of the graphs that change in a minute."""
    yield "| Graphs | Cadence | Runs a minute | Worker processes | Temporal, cores | Postgres, cores | Its connections | Histories a day |"
    yield "|--:|---|--:|--:|--:|--:|--:|--:|"
    for graphs in FLEETS:
        rates = {"each minute": float(graphs), "adaptive": graphs * (changing + (1 - changing) / SLOWEST)}
        for cadence, per_minute in rates.items():
            workers = max(2, math.ceil(per_minute * costs.worker / 60 / BUSY))
            yield (
                f"| {graphs:,} | {cadence} | {per_minute:,.0f} | {workers} | {per_minute * costs.server / 60:,.1f}"
                f" | {per_minute * costs.postgres / 60:,.1f} | {workers * costs.connections:,}"
                f" | {per_minute * 1440 * KILOBYTES_A_RUN / 1e6:,.1f} GB |"
            )


def main() -> None:
    """Compute, print, and replace the tables of docs/sizing.md."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "--changing", type=float, default=0.05, help="part of the graphs that change in a minute"
    )
    arguments.add_argument(
        "--worker-ms", type=float, help="worker CPU of a run, instead of docs/performance.md's"
    )
    arguments.add_argument("--server-ms", type=float, help="CPU of a run in Temporal's server, likewise")
    arguments.add_argument("--dry", action="store_true", help="leave the page as it is")
    given = arguments.parse_args()
    known = Costs.measured()
    costs = Costs(
        worker=known.worker if given.worker_ms is None else given.worker_ms / 1000,
        server=known.server if given.server_ms is None else given.server_ms / 1000,
        postgres=known.postgres,
        connections=known.connections,
    )
    for name, lines in {"worker": waits(costs), "fleets": fleets(costs, given.changing)}.items():
        text = "\n".join(lines)
        print(text, end="\n\n")  # its purpose
        if not given.dry:
            replace_between(REPORT, f"<!-- sizing:{name} -->", f"<!-- /sizing:{name} -->", f"\n{text}\n")


if __name__ == "__main__":
    main()
