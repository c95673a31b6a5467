"""`max_lag`: what a graph's record promises is in its runs, in `status` and in the metric of the alarm."""

from collections.abc import Callable

import pytest

from syncline.messages.sync import CycleStatus, SyncResult
from syncline.run_text import format_lag
from syncline.testing.lab import SyncLab, eventually
from tests.kit.command_line import CommandLine


@pytest.mark.parametrize(
    ("lag", "known", "promised", "late"),
    [(31.0, True, 30, True), (30.0, True, 30, False), (31.0, False, 30, False), (31.0, True, None, False)],
)
def test_result_is_late_if_it_is_known_to_be(
    lag: float, known: bool, promised: int | None, late: bool
) -> None:
    result = SyncResult(
        status=CycleStatus.DRAINED, lag_seconds=lag, lag_known=known, max_lag_seconds=promised
    )
    assert result.late is late
    assert ("promised" in format_lag(result)) is (promised is not None)


async def test_max_lag_is_set_kept_and_taken_back(
    lab: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]
) -> None:
    graph, syncline = await lab.add_graph("default", prepare=True), temporal_only(lab)
    assert graph.max_lag_seconds is None
    answer = await syncline.answer("graph set", graph.slug, "--max-lag", "30")
    assert isinstance(answer, dict)
    assert answer["max_lag_seconds"] == 30
    assert (await lab.run(graph)).result.max_lag_seconds == 30

    async def promised() -> bool:
        # The change has started a run of its Schedule, which may be open.
        return "30 s promised" in (await syncline("status", graph.slug)).out

    await eventually(promised)
    await syncline.answer("graph set", graph.slug, "--name", "another")
    assert (await lab.services.graphs.get(graph.slug)).max_lag_seconds == 30
    await syncline.answer("graph set", graph.slug, "--max-lag", "0")
    assert (await lab.services.graphs.get(graph.slug)).max_lag_seconds is None
    assert (await lab.run(graph)).result.max_lag_seconds is None
