"""What a failed run says to who reads it with Temporal's own tools: a sentence, and frames of bugs alone."""

from collections.abc import Iterator

import pytest
from temporalio.api.enums.v1 import ApplicationErrorCategory, EventType
from temporalio.api.failure.v1 import Failure
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.exceptions import ApplicationErrorCategory as Category

from activities.errors import translated
from syncline import names
from syncline.errors import (
    CycleBusy,
    CycleFenced,
    GraphNotFound,
    ProviderGone,
    StoreUnavailable,
    SynclineError,
    VectorStoreRejected,
)
from syncline.messages.sync import SyncResult
from syncline.provider import SyncContext
from syncline.testing.lab import Run, SyncLab
from syncline.testing.providers import FakeProvider, sync_result


def chain(failure: Failure) -> Iterator[Failure]:
    yield failure
    while failure.HasField("cause"):
        failure = failure.cause
        yield failure


async def failures(run: Run) -> list[Failure]:
    """Return all that the run's history tells of failures, its own end last."""
    with pytest.raises(WorkflowFailureError):
        await run.result()
    found = []
    for event in (await run.fetch_history()).events:
        name = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").lower()
        attributes = getattr(event, f"{name}_event_attributes")
        if "failure" in attributes.DESCRIPTOR.fields_by_name and attributes.HasField("failure"):
            found += chain(attributes.failure)
    return found


def raising(error: Exception) -> FakeProvider:
    async def cycle(context: SyncContext) -> SyncResult:
        raise error

    return FakeProvider(cycle=cycle)


async def test_an_error_on_purpose_is_a_sentence_without_frames(lab: SyncLab) -> None:
    graph = await lab.add_graph(raising(VectorStoreRejected("main", "its vectors have 3 dimensions.")))
    found = await failures(await lab.start(graph))
    assert [failure.stack_trace for failure in found if failure.stack_trace] == []
    told = [failure.message for failure in found if "3 dimensions" in failure.message]
    # Of the activity, of the run, and of who reported it to the run: each once, not once more as its own cause.
    assert len(told) == 3


async def test_a_failed_cycle_is_a_sentence_without_frames(lab: SyncLab) -> None:
    async def cycle(context: SyncContext) -> SyncResult:
        return sync_result(error="column gone")

    graph = await lab.add_graph(FakeProvider(cycle=cycle))
    [failure] = await failures(await lab.start(graph))
    assert failure.application_failure_info.type == "CycleFailed"
    assert failure.stack_trace == ""


async def test_refused_input_is_a_sentence_without_frames(lab: SyncLab) -> None:
    run = await lab.client.start_workflow(
        names.SYNC_GRAPH, {"graph": "g", "rows": 1}, id=lab.unique("run"), task_queue=lab.task_queue
    )
    found = await failures(run)
    assert [failure.stack_trace for failure in found if failure.stack_trace] == []
    refused = [failure for failure in found if failure.application_failure_info.type == "InputInvalid"]
    assert refused
    assert [failure.stack_trace for failure in refused if failure.stack_trace] == []


async def test_a_bug_keeps_its_innermost_frames(lab: SyncLab) -> None:
    """It is retried for hours: the attempt's failure shows where it was raised."""

    async def cycle(context: SyncContext) -> SyncResult:
        return deep(30)

    def deep(left: int) -> SyncResult:
        if left % 2:
            return deep(left - 1)
        return deep(left - 1) if left else sync_result(rows=int("not a number"))

    graph = await lab.add_graph(FakeProvider(cycle=cycle))
    run = await lab.start(graph)
    while True:
        pending = (await run.describe()).raw_description.pending_activities
        if pending and pending[0].HasField("last_failure"):
            break
    await run.terminate()
    shown = pending[0].last_failure
    assert shown.application_failure_info.type == "ValueError"
    assert 'int("not a number")' in shown.stack_trace
    assert len(shown.stack_trace) < 4_000


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (CycleBusy("g", "run"), Category.BENIGN),
        (CycleFenced("g", 7), Category.BENIGN),
        (ProviderGone("g", "acme"), Category.BENIGN),
        (GraphNotFound("g"), Category.BENIGN),
        (StoreUnavailable("main", "away"), Category.UNSPECIFIED),
        (VectorStoreRejected("main", "no"), Category.UNSPECIFIED),
    ],
)
def test_expected_errors_are_benign(error: SynclineError, category: Category) -> None:
    told = translated(error)
    assert isinstance(told, ApplicationError)
    assert told.category is category


async def test_an_expected_error_is_benign_in_history(lab: SyncLab) -> None:
    """A metric of failed activities, by which somebody is paged, does not count it."""
    graph = await lab.add_graph(raising(CycleFenced("g", 7)))
    found = await failures(await lab.start(graph))
    benign = ApplicationErrorCategory.APPLICATION_ERROR_CATEGORY_BENIGN
    told = [f for f in found if f.application_failure_info.type == "CycleFenced"]
    assert {failure.application_failure_info.category for failure in told} == {benign}
