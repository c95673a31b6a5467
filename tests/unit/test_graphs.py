"""What a graph record may say."""

import re

import pytest
from pydantic import ValidationError

from syncline.control.graphs import GraphDraft, draft_graph, graph_changes
from syncline.control.schedule_spec import ScheduleSpec
from syncline.errors import GraphInvalid


def test_the_place_of_a_graph_follows_from_its_slug() -> None:
    assert GraphDraft(slug="my-graph").place == ("my_graph", "my_graph_")


def test_a_declared_place_is_kept() -> None:
    draft = GraphDraft(slug="world", schema_name="elsewhere", qdrant_prefix="w-")
    assert draft.place == ("elsewhere", "w-")


@pytest.mark.parametrize("slug", ["", "World", "1st", "a_b", "a b", "-a", "a\n", "é", "a" * 64])
def test_a_slug_is_lower_case_words_joined_by_hyphens(slug: str) -> None:
    with pytest.raises(GraphInvalid, match="slug"):
        draft_graph({"slug": slug})


@pytest.mark.parametrize(
    "schema", ["Kg", "1kg", "k-g", 'k"g', "", "k" * 64, "syncline", "information_schema", "pg_temp"]
)
def test_a_schema_name_is_plain_and_not_reserved(schema: str) -> None:
    with pytest.raises(GraphInvalid, match="schema_name"):
        draft_graph({"slug": "kg", "schema_name": schema})


@pytest.mark.parametrize("slug", ["public", "syncline", "information-schema"])
def test_a_slug_whose_schema_would_be_reserved_asks_for_a_schema_name(slug: str) -> None:
    with pytest.raises(GraphInvalid, match=r"schema_name: .* is reserved; name another schema"):
        draft_graph({"slug": slug})
    assert GraphDraft(slug=slug, schema_name="kg").place[0] == "kg"


def test_a_graph_is_in_public_only_where_that_is_said() -> None:
    assert GraphDraft(slug="public", schema_name="public").place == ("public", "public_")


def test_a_store_reference_is_a_key_and_never_a_connection_uri() -> None:
    with pytest.raises(GraphInvalid, match="write_store") as refused:
        draft_graph({"slug": "kg", "write_store": "postgresql://me:hunter2@host/db"})
    assert "hunter2" not in str(refused.value)


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(GraphInvalid, match="shcema"):
        draft_graph({"slug": "kg", "shcema": "x"})


@pytest.mark.parametrize(
    "cron", ["* * * * *", "0 12 * * MON-FRI", "@hourly", "@every 90s", "0 0 12 * * * 2030"]
)
def test_a_schedule_takes_cron_expressions(cron: str) -> None:
    assert ScheduleSpec(cron=cron).cron == cron


@pytest.mark.parametrize("spec", [{"every_seconds": 0}, {"cron": "* * *"}, {"cron": ""}, {"evry_seconds": 5}])
def test_a_schedule_that_cannot_be_is_refused(spec: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ScheduleSpec.model_validate(spec)


@pytest.mark.parametrize(
    ("vectors", "field"),
    [
        ({"tokens_per_day": 0}, "vectors.tokens_per_day"),
        ({"tokens": 5}, "vectors.tokens"),
        ({"collections": {"shards": 0}}, "vectors.collections.shards"),
        ({"collections": {"quantization": "product"}}, "vectors.collections.quantization"),
        ({"collections": {"on_disk": True}}, "vectors.collections.on_disk"),
    ],
)
def test_rules_of_vectors_that_cannot_be_are_refused_by_field(vectors: object, field: str) -> None:
    with pytest.raises(GraphInvalid, match=re.escape(field)):
        graph_changes("world", {"vectors": vectors})
