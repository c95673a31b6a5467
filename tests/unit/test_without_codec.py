"""Runs are listed though Temporal keeps them encoded and this process has no codec."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest
from temporalio.client import Client, WorkflowExecution
from temporalio.common import SearchAttributePair, TypedSearchAttributes

from syncline.temporal.client import SCHEDULED_BY, SCHEDULED_FOR
from syncline.temporal.runs import ListedRun, outcome_of
from syncline.temporal.started_by import StartedBy, started_by

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("error", [KeyError("Unknown payload encoding"), RuntimeError("no codec")])
async def test_a_memo_that_needs_a_codec_does_not_hinder(error: Exception) -> None:
    async def memo_value(*_: object, **__: object) -> object:
        raise error

    attributes = TypedSearchAttributes(
        [SearchAttributePair(SCHEDULED_BY, "sync-graph/kg"), SearchAttributePair(SCHEDULED_FOR, NOW)]
    )
    run = SimpleNamespace(
        typed_search_attributes=attributes, parent_id=None, memo_value=memo_value, start_time=NOW
    )
    assert await started_by(cast(WorkflowExecution, run), NOW) in (StartedBy.CHANGE, StartedBy.SCHEDULE)


async def test_a_result_that_needs_a_codec_is_told_as_unreadable() -> None:
    async def result(**_: object) -> object:
        raise KeyError("Unknown payload encoding")

    client = SimpleNamespace(get_workflow_handle=lambda *_, **__: SimpleNamespace(result=result))
    run = SimpleNamespace(workflow_id="w", run_id="r")
    outcome = await outcome_of(cast(Client, client), cast(ListedRun, run))
    assert outcome.error is not None
    assert "cannot be read" in outcome.error
