"""What started a run is told by its attributes where its memo cannot be read."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest
from temporalio.client import WorkflowExecution
from temporalio.common import SearchAttributePair, TypedSearchAttributes

from syncline.temporal.client import SCHEDULED_BY, SCHEDULED_FOR
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
