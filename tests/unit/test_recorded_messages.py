"""What earlier releases wrote into histories must be understood by this one: every message decodes, by its type."""

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter

from activities.operations import FleetActivities, OperationActivities
from activities.schedules import ScheduleActivities
from activities.sync import SyncActivities
from syncline.errors import InputInvalid
from syncline.messages.sync import HandedOn, ProviderResolution, SyncGraphInput, SyncGraphResult, SyncResult
from workflows.operations import OPERATIONS
from workflows.reconcile import ReconcileSchedules
from workflows.sync_graph import SyncGraph

ROOT = Path(__file__).parents[2]
HISTORIES = ROOT / "tests" / "histories"
RECORDED = sorted(HISTORIES.glob("*/*.json"))

converter = pydantic_data_converter.payload_converter


@dataclass(frozen=True)
class Recorded:
    """A message of a history: what it is, its type today, and how it was written."""

    what: str
    type: type
    payload: Payload

    def decoded(self, payload: Payload | None = None) -> object:
        return converter.from_payload(payload or self.payload, self.type)


WORKFLOWS = {
    definition.name: definition
    for definition in (
        workflow._Definition.must_from_class(cls) for cls in (SyncGraph, ReconcileSchedules, *OPERATIONS)
    )
}
ACTIVITIES = {
    definition.name: definition
    for owner in (SyncActivities, ScheduleActivities, OperationActivities, FleetActivities)
    for method in vars(owner).values()
    if callable(method) and (definition := activity._Definition.from_callable(method)) is not None
}


def messages(path: Path) -> Iterator[Recorded]:
    """Every message of a recorded history."""
    history = WorkflowHistory.from_json(path.stem, path.read_text(encoding="utf-8"))
    definition = WORKFLOWS[history.events[0].workflow_execution_started_event_attributes.workflow_type.name]
    scheduled: dict[int, str] = {}
    for event in history.events:
        yield from _messages_of(event, definition, scheduled)


def _messages_of(
    event: HistoryEvent, definition: workflow._Definition, scheduled: dict[int, str]
) -> Iterator[Recorded]:
    name = definition.name
    match event.event_type:
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
            started = event.workflow_execution_started_event_attributes
            yield from _typed(f"input of {name}", definition.arg_types, started.input.payloads)
            last = started.last_completion_result.payloads
            yield from _typed(f"last result of {name}", [definition.ret_type], last)
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
            completed = event.workflow_execution_completed_event_attributes.result.payloads
            yield from _typed(f"result of {name}", [definition.ret_type], completed)
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
            failed = event.workflow_execution_failed_event_attributes.failure.application_failure_info
            if failed.type == "CycleFailed":
                yield from _typed("details of CycleFailed", [SyncResult, HandedOn], failed.details.payloads)
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
            signal = event.workflow_execution_signaled_event_attributes
            types = definition.signals[signal.signal_name].arg_types
            yield from _typed(f"signal {signal.signal_name}", types, signal.input.payloads)
        case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            asked = event.activity_task_scheduled_event_attributes
            scheduled[event.event_id] = asked.activity_type.name
            types = ACTIVITIES[asked.activity_type.name].arg_types
            yield from _typed(f"input of {asked.activity_type.name}", types, asked.input.payloads)
        case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
            done = event.activity_task_completed_event_attributes
            by = scheduled[done.scheduled_event_id]
            yield from _typed(f"result of {by}", [ACTIVITIES[by].ret_type], done.result.payloads)


def _typed(what: str, types: Sequence[type | None] | None, payloads: Sequence[Payload]) -> Iterator[Recorded]:
    assert types is not None, f"{what} has no types"
    for kind, payload in zip(types, payloads, strict=False):
        assert kind is not None, f"{what} has no type"
        yield Recorded(what, kind, payload)


def with_fields(payload: Payload, **fields: object) -> Payload:
    """The payload as a release would write it whose model has these fields more."""
    changed = Payload(data=json.dumps(json.loads(payload.data) | fields).encode())
    changed.metadata.update(payload.metadata)
    return changed


REFUSED = "input_refused"
"""Records what an operator mistyped: the only message that no release understands."""


def label(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", RECORDED, ids=label)
def test_a_recorded_message_decodes_and_a_newer_release_may_have_added_a_field(path: Path) -> None:
    found = list(messages(path))
    assert found
    for message in found:
        if path.stem == REFUSED:
            with pytest.raises(InputInvalid):
                message.decoded()
            continue
        decoded = message.decoded()
        if isinstance(decoded, BaseModel) and decoded.model_config.get("extra") != "forbid":
            newer = with_fields(message.payload, added_by_a_later_release={"and": ["nested"]})
            assert message.decoded(newer) == decoded, message.what


def test_the_recorded_messages_are_of_every_kind() -> None:
    """Else the test above would prove little."""
    found = {message.what for path in RECORDED for message in messages(path)}
    assert found >= {
        "input of SyncGraph", "result of SyncGraph", "last result of SyncGraph", "details of CycleFailed",
        "input of resolve_provider", "result of resolve_provider", "input of sync_cycle", "result of sync_cycle",
        "signal provider_fallback", "signal cycle_progress",
        "result of ReconcileSchedules", "input of VerifyGraph", "result of verify_graph",
    }  # fmt: skip


@pytest.mark.parametrize("model", [SyncGraphInput, ProviderResolution, SyncResult, SyncGraphResult])
def test_a_field_without_a_default_would_be_found(model: type[BaseModel]) -> None:
    evolved = type(model.__name__, (model,), {"__annotations__": {"new": int}, "__module__": __name__})
    of_this_type = [
        message
        for path in RECORDED
        if path.stem != REFUSED
        for message in messages(path)
        if isinstance(message.decoded(), model)
    ]
    assert of_this_type
    for message in of_this_type:
        with pytest.raises((ValidationError, InputInvalid), match="new"):
            converter.from_payload(message.payload, evolved)


def test_every_release_has_its_histories() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = set(re.findall(r"^## \[(\d[^\]]*)\]", changelog, flags=re.MULTILINE))
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    recorded = {path.parent.name for path in RECORDED}
    assert released | {declared} == recorded, "run: python tests/histories/record.py, from the released code"
