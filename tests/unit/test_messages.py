"""The wire models: what operators type, and what old histories say, must go on being understood."""

import json
from uuid import uuid4

import pytest
from pydantic import TypeAdapter, ValidationError

from syncline.errors import InputInvalid
from syncline.messages import sync as messages
from syncline.messages.base import GraphRef, Message
from syncline.messages.sync import CycleStatus, SyncGraphInput, SyncGraphResult, SyncResult, TableProgress

MESSAGES = [
    model
    for model in vars(messages).values()
    if isinstance(model, type) and issubclass(model, Message) and model is not Message
]

REQUIRED = {
    "Cadence": {"every_seconds", "base_seconds", "reason", "since", "fingerprint"},
    "Outage": {"how", "since"},
    "CadenceRules": {"intervals", "fingerprint"},
    "Committed": {"rows", "links", "vectors", "failures"},
    "CycleProgress": {"phase"},
    "Fairness": {"key"},
    "Fallback": {"reason", "detail"},
    "GraphRef": {"id", "slug"},
    "HandedOn": {"carried"},
    "Held": {"provider_id", "detail"},
    "LoadRangesRequest": {"graph"},
    "OpenWriter": set(),
    "ProviderFallback": {"idempotency_key", "graph", "fallback", "at"},
    "ProviderHeld": {"idempotency_key", "graph", "held", "at"},
    "ProviderResolution": {"graph"},
    "ProviderReturned": {"idempotency_key", "graph", "provider_id", "away", "at"},
    "OutageEnded": {"at", "away"},
    "Served": {"version", "api_version", "distribution", "worker"},
    "SetCadenceRequest": {"graph", "every_seconds", "fingerprint"},
    "SyncCycleRequest": {"graph"},
    "SyncEvent": {"graph", "graph_id", "run_id", "rows", "links", "failures"},
    "SyncGraphResult": {"graph", "result"},
    "SyncResult": {"status"},
    "TableProgress": {"table"},
    "UsedMap": {"name", "version", "hash"},
    "Waiting": {"on", "since"},
}
"""What the first release with a message required. A field added later must have a default, so none grows."""


def test_an_input_as_operators_type_it_is_understood() -> None:
    assert SyncGraphInput.model_validate_json('{"graph": "world"}').graph == "world"
    assert SyncGraphInput.model_validate_json("{}").graph is None
    assert SyncGraphInput.model_validate_json('{"graph": null, "batch_rows": 500}').batch_rows == 500


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ('{"grpah": "world"}', "'grpah'"),
        ('{"graph": 3}', "'graph'"),
        ('{"graph": "world", "batch_rows": 0}', "'batch_rows'"),
        ('{"time_budget_seconds": 3601}', "'time_budget_seconds'"),
        ('"world"', "valid dictionary"),
    ],
)
def test_an_input_that_breaks_the_model_is_refused_by_name(typed: str, named: str) -> None:
    with pytest.raises(InputInvalid, match=named) as refused:
        TypeAdapter(SyncGraphInput | None).validate_json(typed)
    assert "Known keys: graph, batch_rows, time_budget_seconds" in str(refused.value)


def test_a_refused_input_does_not_quote_values() -> None:
    with pytest.raises(InputInvalid) as refused:
        SyncGraphInput.model_validate({"graph": "world", "password": "hunter2"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("model", MESSAGES, ids=lambda model: model.__name__)
def test_messages_are_frozen_and_tolerate_fields_of_newer_releases(model: type[Message]) -> None:
    assert model.model_config.get("frozen") is True
    assert model.model_config.get("extra") == "ignore"


@pytest.mark.parametrize("model", MESSAGES, ids=lambda model: model.__name__)
def test_no_message_requires_more_than_it_did_in_the_first_release(model: type[Message]) -> None:
    required = {name for name, field in model.model_fields.items() if field.is_required()}
    assert required <= REQUIRED.get(model.__name__, set())


def test_a_result_of_a_newer_release_is_read_by_this_one() -> None:
    graph = GraphRef(id=uuid4(), slug="world")
    result = SyncGraphResult(graph=graph, result=SyncResult(status=CycleStatus.DRAINED))
    newer = json.loads(result.model_dump_json()) | {"invented_later": 1}
    newer["result"]["also_later"] = {"a": []}
    assert SyncGraphResult.model_validate(newer) == result


def test_a_message_cannot_be_changed() -> None:
    graph = GraphRef(id=uuid4(), slug="world")
    with pytest.raises(ValidationError, match="frozen"):
        graph.slug = "other"  # type: ignore[misc] # that is the point


def test_rows_and_links_of_a_result_are_sums_over_its_tables() -> None:
    result = SyncResult(
        status=CycleStatus.DRAINED,
        tables=(
            TableProgress(table="nodes", rows=3, links=2, deletes=1),
            TableProgress(table="edges", rows=5),
        ),
    )
    assert (result.rows, result.links, result.drained) == (9, 2, True)
