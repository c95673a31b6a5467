"""What a graph's composition may declare."""

import pytest
from pydantic import JsonValue, ValidationError

from syncline.control.composition import Composition, composition_invalid, parse_composition
from syncline.control.maps import MapOptions
from syncline.errors import CompositionInvalid


def test_an_empty_composition_declares_nothing() -> None:
    assert parse_composition("world", {}) == Composition()


def test_an_entry_falls_back_unless_it_says_otherwise() -> None:
    entry = parse_composition("world", {"sync": {"provider": "acme-sync"}}).sync
    assert entry is not None
    assert (entry.provider, entry.options, entry.on_missing) == ("acme-sync", {}, None)


@pytest.mark.parametrize("kind", Composition.model_fields)
def test_every_reserved_kind_is_accepted(kind: str) -> None:
    parsed = parse_composition("world", {kind: {"provider": "acme", "on_missing": "hold"}})
    assert getattr(parsed, kind).provider == "acme"


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({"snyc": {"provider": "x"}}, "snyc"),
        ({"sync": {"provider": "x", "option": {}}}, "sync.option"),
        ({"sync": {}}, "sync.provider"),
        ({"sync": {"provider": ""}}, "sync.provider"),
        ({"sync": {"provider": 3}}, "sync.provider"),
        ({"sync": "default"}, "sync"),
        ({"sync": {"provider": "x", "on_missing": "ignore"}}, "sync.on_missing"),
        ({"dimensions": {"provider": "x", "options": []}}, "dimensions.options"),
    ],
)
def test_a_broken_composition_names_the_graph_and_the_key(raw: dict[str, JsonValue], key: str) -> None:
    with pytest.raises(CompositionInvalid) as refused:
        parse_composition("world", raw)
    assert (refused.value.graph, refused.value.key) == ("world", key)
    assert f"Graph 'world': composition key '{key}'" in str(refused.value)


def test_a_mistyped_kind_is_answered_with_the_known_ones() -> None:
    with pytest.raises(CompositionInvalid, match="unknown key; known are sync, fact_decomposition"):
        parse_composition("world", {"snyc": {"provider": "x"}})


def test_a_tenant_of_a_wrong_shape_is_named_by_its_key() -> None:
    with pytest.raises(ValidationError) as refused:
        MapOptions.model_validate({"map": "saas", "tenant": ["7"]})
    said = str(composition_invalid("acme", "sync.options", refused.value))
    assert "'sync.options.tenant' is invalid: a text or a whole number is wanted" in said
