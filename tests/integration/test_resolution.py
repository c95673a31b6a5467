"""Resolving a graph to its provider: an answer, a reason, or an error; never a guess."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import BaseModel, ConfigDict, JsonValue, SecretStr, model_validator
from structlog.testing import capture_logs
from temporalio import activity
from temporalio.testing import ActivityEnvironment

from providers import BUILTIN
from syncline.control.graphs import Graph, GraphChanges, GraphDraft
from syncline.control.resolution import (
    Resolved,
    resolve_fact_decomposition_provider,
    resolve_provider,
    resolve_sync_provider,
)
from syncline.control.services import Services
from syncline.devstack.postgres import PostgresServer
from syncline.errors import (
    CompositionInvalid,
    GraphInvalid,
    GraphNotFound,
    ProviderGone,
    ProviderMissing,
    ShadowInvalid,
    StoreNotConfigured,
    StoreRejected,
    StoreUnavailable,
)
from syncline.messages.provider_state import FallbackReason
from syncline.provider import KINDS, DecomposedFact, Provider, ProviderKind, SourceText
from syncline.registry import Registry
from syncline.settings import Settings
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.stores.qdrant_server import QdrantServerStore
from syncline.testing.providers import FakeProvider


class AcmeOptions(BaseModel):
    """What the plugin of these tests takes."""

    model_config = ConfigDict(extra="forbid")

    depth: int = 1
    labels: list[str] = []


def _registry() -> Registry:
    registry = Registry()
    registry.load(BUILTIN, entry_points=False)
    registry.register("sync", FakeProvider("acme", options_model=AcmeOptions), "acme-plugin 2.0")
    return registry


@pytest.fixture
def settings(new_database: Callable[..., str], tmp_path: Path) -> Settings:
    return Settings(
        write_dsn=SecretStr(new_database()),
        graph_dsn=SecretStr(new_database()),
        stores={"archive": SecretStr(new_database())},
        qdrant_path=tmp_path / "qdrant",
    )


@pytest_asyncio.fixture(loop_scope="session")
async def services(settings: Settings) -> AsyncIterator[Services]:
    async with Services.open(settings, registry=_registry()) as services:
        await services.prepare_control()
        yield services


async def _graph(services: Services, slug: str = "world", **entry: JsonValue) -> Graph:
    return await services.graphs.add(GraphDraft(slug=slug, composition={"sync": entry} if entry else {}))


async def test_a_declared_and_installed_provider_answers(services: Services) -> None:
    graph = await _graph(services, provider="default")
    for reference in ("world", str(graph.id), graph.id):
        resolved = await resolve_sync_provider(services, reference)
        assert resolved.graph == graph
        assert resolved.provider is not None
        assert resolved.provider.id == "default"
        assert resolved.reason is None


async def test_the_answer_says_who_contributes_the_provider_and_carries_its_options(
    services: Services,
) -> None:
    await _graph(services, provider="acme", options={"depth": 3})
    resolved = await resolve_sync_provider(services, "world")
    assert resolved.distribution == "acme-plugin 2.0"
    assert resolved.options == AcmeOptions(depth=3)


async def test_without_a_graph_there_is_no_provider_and_no_question_to_the_database(
    services: Services,
) -> None:
    await services.control.close()
    resolved = await resolve_sync_provider(services, None)
    assert (resolved.graph, resolved.provider) == (None, None)
    assert resolved.reason is FallbackReason.NO_GRAPH_CONTEXT


async def test_a_composition_without_sync_falls_back(services: Services) -> None:
    graph = await services.graphs.add(
        GraphDraft(slug="world", composition={"dimensions": {"provider": "acme"}})
    )
    resolved = await resolve_sync_provider(services, "world")
    assert (resolved.graph, resolved.provider, resolved.entry) == (graph, None, None)
    assert resolved.reason is FallbackReason.NOT_DECLARED
    assert "'world'" in resolved.detail


async def test_a_provider_that_nobody_contributes_falls_back_and_is_named(services: Services) -> None:
    await _graph(services, provider="ghost", on_missing="hold")
    resolved = await resolve_sync_provider(services, "world")
    assert resolved.reason is FallbackReason.NOT_INSTALLED
    assert "'ghost'" in resolved.detail
    assert resolved.entry is not None
    assert (resolved.entry.provider, resolved.entry.on_missing) == ("ghost", "hold")
    assert resolved.provider is None


async def test_a_missing_provider_is_warned_of_once_per_graph_and_provider(
    services: Services, settings: Settings
) -> None:
    async def levels(of: Services, *slugs: str) -> list[str]:
        with capture_logs() as logs:
            for slug in slugs:
                await resolve_sync_provider(of, slug)
        return [told["log_level"] for told in logs]

    await _graph(services, "a", provider="ghost")
    await _graph(services, "b", provider="ghost")
    assert await levels(services, "a", "a", "b", "a", "b") == [
        "warning",
        "debug",
        "warning",
        "debug",
        "debug",
    ]
    await services.graphs.update("a", GraphChanges(composition={"sync": {"provider": "phantom"}}))
    assert await levels(services, "a", "a") == ["warning", "debug"]
    async with Services.open(settings, registry=_registry()) as restarted:
        assert await levels(restarted, "b", "b") == ["warning", "debug"]


ACME = {"kind": "sync", "id": "acme", "api_version": 1, "routed": True}


async def _worker(
    services: Services, *providers: dict[str, object], seen: str = "0 s", queue: str = "syncline"
) -> None:
    """Write a worker into the table, as another process would."""
    async with services.control.driver() as connection:
        await connection.execute(
            "INSERT INTO syncline.workers (id, identity, task_queue, seen_at, syncline_version, python_version,"
            " providers) VALUES (gen_random_uuid(), 'other', $1, now() - $2::text::interval, '0', '3',"
            " $3::text::jsonb)",
            queue,
            seen,
            json.dumps(providers),
        )


async def test_a_plugin_of_another_worker_answers_in_its_newest_version(settings: Settings) -> None:
    async with Services.open(settings) as services:  # without a registry
        await services.prepare_control()
        # Its options are validated where it is: here nobody knows their model.
        await _graph(services, provider="acme", options={"depth": 3}, on_missing="fail")
        for version in ("1.9", "1.10", "1.2"):
            other = {"kind": "sync", "id": "other", "version": "9", "api_version": 1, "distribution": "o 9"}
            await _worker(services, other, {**ACME, "version": version, "distribution": f"acme {version}"})
        with capture_logs() as logs:
            resolved = await resolve_sync_provider(services, "world")
    assert (resolved.provider, resolved.reason, resolved.routed) == (None, None, True)
    assert resolved.elsewhere is not None
    assert (resolved.elsewhere.version, resolved.distribution) == ("1.10", "acme 1.10")
    assert logs == []


async def test_who_is_gone_or_elsewhere_or_polls_no_queue_of_it_does_not_count(settings: Settings) -> None:
    async with Services.open(settings) as services:
        await services.prepare_control()
        await _graph(services, provider="acme")
        acme = {**ACME, "version": "1.0", "distribution": "acme 1.0"}
        await _worker(services, acme, seen="101 s")
        await _worker(services, acme, queue="another")
        await _worker(services, {**acme, "routed": False})
        await _worker(services, {**acme, "kind": "definition"})
        assert (await resolve_sync_provider(services, "world")).reason is FallbackReason.NOT_INSTALLED
        await _worker(services, acme, seen="99 s")
        assert (await resolve_sync_provider(services, "world")).elsewhere is not None


async def test_a_table_of_workers_that_is_missing_costs_those_alone_who_need_it(services: Services) -> None:
    await _graph(services, "here", provider="acme")
    await _graph(services, "bare")
    await _graph(services, "away", provider="ghost")
    async with services.control.driver() as connection:
        await connection.execute("DROP TABLE syncline.workers")
    assert (await resolve_sync_provider(services, "here")).provider is not None
    assert (await resolve_sync_provider(services, "bare")).reason is FallbackReason.NOT_DECLARED
    with pytest.raises(StoreRejected, match=r"syncline\.workers"):
        await resolve_sync_provider(services, "away")


async def test_an_unknown_graph_raises(services: Services) -> None:
    with pytest.raises(GraphNotFound, match="nowhere"):
        await resolve_sync_provider(services, "nowhere")


async def test_an_empty_reference_is_an_unknown_graph_and_not_no_graph(services: Services) -> None:
    with pytest.raises(GraphNotFound):
        await resolve_sync_provider(services, "")


@pytest.mark.long(after=2)
@pytest.mark.parametrize(
    ("composition", "key"),
    [
        ('{"snyc": {"provider": "default"}}', "snyc"),
        ('{"sync": {"provider": "ghost", "options": 3}}', "sync.options"),
        ('{"sync": {"provider": "default", "options": {"depth": 3}}}', "sync.options.depth"),
        ('{"sync": {"provider": "acme", "options": {"depth": "deep"}}}', "sync.options.depth"),
        ('{"sync": {"provider": "acme", "options": {"labels": ["a", 3]}}}', "sync.options.labels.1"),
        ('{"sync": {"provider": "default"}, "relations": {}}', "relations.provider"),
    ],
)
async def test_an_invalid_composition_raises_and_names_the_key(
    services: Services, composition: str, key: str
) -> None:
    await _graph(services)
    async with services.control.driver() as connection:
        await connection.execute("UPDATE syncline.graphs SET composition = $1::text::jsonb", composition)
    with pytest.raises(CompositionInvalid) as refused:
        await resolve_sync_provider(services, "world")
    assert (refused.value.graph, refused.value.key) == ("world", key)


class Ashamed(AcmeOptions):
    """Options whose validator fails for the reason that is its name."""

    @model_validator(mode="before")
    @classmethod
    def _fail(cls, options: dict[str, str]) -> object:
        raise {"KeyError": KeyError, "SystemExit": SystemExit}[options["labels"]](f"hunter2 {options}")


@pytest.mark.parametrize("shadow", [False, True])
async def test_options_of_a_plugin_are_validated_where_it_runs(services: Services, shadow: bool) -> None:
    plugin = FakeProvider("plugin", options_model=AcmeOptions)
    services.registry.register("sync", plugin, "plugin 1.0", routed=True)
    key = "shadow" if shadow else "sync"
    entry: JsonValue = {"provider": "plugin", "options": {"depth": "deep"}}
    composition: dict[str, JsonValue] = {"sync": {"provider": "default"}, key: entry}
    await services.graphs.add(GraphDraft(slug="world", composition=composition))
    resolved = await resolve_sync_provider(services, "world", shadow=shadow)
    assert (resolved.provider, resolved.options) == (plugin, None)
    with pytest.raises(CompositionInvalid, match=r"distribution 'plugin 1\.0'") as refused:
        resolved.validated()
    assert (refused.value.graph, refused.value.key) == ("world", f"{key}.options.depth")
    composition[key] = {"provider": "plugin", "options": {"depth": 3}}
    await services.graphs.update("world", GraphChanges(composition=composition))
    assert (await resolve_sync_provider(services, "world", shadow=shadow)).validated() == AcmeOptions(depth=3)


@pytest.mark.parametrize("raised", ["KeyError", "SystemExit"])
async def test_whatever_validation_raises_names_graph_key_and_distribution_and_no_value(
    services: Services, raised: str
) -> None:
    services.registry.register("sync", FakeProvider("own", options_model=Ashamed), "own 1.0")
    await _graph(services, provider="own", options={"labels": raised, "secret": "hunter2"})
    with pytest.raises(CompositionInvalid) as refused:
        await resolve_sync_provider(services, "world")
    assert str(refused.value).startswith(
        "Graph 'world': composition key 'sync.options' is invalid: options_model of distribution 'own 1.0' "
        f"raised {raised} at tests/integration/test_resolution.py:"
    )
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


async def test_a_broken_record_raises(services: Services) -> None:
    await _graph(services, provider="default")
    async with services.control.driver() as connection:
        await connection.execute('UPDATE syncline.graphs SET schedule = \'{"cron": "now"}\'')
    with pytest.raises(GraphInvalid):
        await resolve_sync_provider(services, "world")


async def test_a_control_database_that_is_down_raises_and_never_falls_back(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "data")
    try:
        dsn = SecretStr(server.start().dsn())
        settings = Settings(write_dsn=dsn, graph_dsn=dsn, qdrant_path=tmp_path / "qdrant")
        async with Services.open(settings, registry=_registry()) as services:
            await services.prepare_control()
            await _graph(services, provider="ghost")
            assert (await resolve_sync_provider(services, "world")).reason is FallbackReason.NOT_INSTALLED
            server.stop()
            for _ in range(2):  # once over a broken pooled connection, once over none
                with pytest.raises(StoreUnavailable) as refused:
                    await resolve_sync_provider(services, "world")
                assert refused.value.retryable
                assert "'graph'" in str(refused.value)
    finally:
        server.stop()


@pytest.mark.parametrize(
    "resolve",
    [
        resolve_sync_provider,
        resolve_fact_decomposition_provider,
        *(partial(resolve_provider, kind) for kind in KINDS),
    ],
)
async def test_missing_services_are_an_explicit_error(
    resolve: Callable[..., Awaitable[Resolved[Provider]]],
) -> None:
    for graph in (None, "world"):
        with pytest.raises(RuntimeError, match=r"without services.*Services\.open"):
            await resolve(None, graph)


async def test_the_parts_of_a_graph_are_the_stores_that_its_record_names(services: Services) -> None:
    graph = await services.graphs.add(GraphDraft(slug="world", write_store="archive"))
    assert services.write_schema(graph).store is services.store("write", "archive")
    assert services.write_schema(graph).store.name == "archive"
    assert services.target_schema(graph).store is services.store("graph", None)
    assert services.target_schema(graph).schema == "world"
    assert services.graph_vectors(graph).collection("nodes") == "world_nodes"


async def test_preparing_a_graph_migrates_both_of_its_stores_once(services: Services) -> None:
    graph = await services.graphs.add(GraphDraft(slug="world", write_store="archive"))
    applied = [
        "write_0001",
        "engine_0001",
        "engine_0002",
        "engine_0003",
        "engine_0004",
        "engine_0005",
        "engine_0006",
        "engine_0007",
        "engine_0008",
        "engine_0009",
        "engine_0010",
        "graph_0001",
    ]
    assert await services.prepare_graph(graph) == applied
    assert await services.prepare_graph(graph) == []
    async with services.store("write", "archive").driver() as connection:
        assert await connection.fetchval("SELECT count(*) FROM world.write_nodes") == 0


async def test_a_store_that_no_setting_defines_is_named_with_the_known_ones(services: Services) -> None:
    with pytest.raises(StoreNotConfigured, match=r"write store 'attic' .*known: archive"):
        services.store("write", "attic")
    with pytest.raises(StoreNotConfigured, match="Qdrant store 'attic'"):
        services.vector_store("attic")


async def test_the_settings_choose_the_vector_store(settings: Settings) -> None:
    async with Services.open(settings) as services:
        assert isinstance(services.vector_store(None), EmbeddedQdrantStore)
        assert services.vector_store(None) is services.vector_store(None)
    remote = settings.model_copy(update={"qdrant_url": "http://127.0.0.1:1"})
    async with Services.open(remote) as services:
        assert isinstance(services.vector_store(None), QdrantServerStore)


async def test_the_control_plane_may_have_a_database_of_its_own(
    settings: Settings, new_database: Callable[..., str]
) -> None:
    apart = settings.model_copy(update={"control_dsn": SecretStr(new_database())})
    async with Services.open(apart) as services:
        await services.prepare_control()
        await _graph(services)
        async with services.store("graph", None).driver() as connection:
            assert await connection.fetchval("SELECT to_regclass('syncline.graphs')") is None


async def test_closing_reaches_everything_and_closed_services_say_so(settings: Settings) -> None:
    fake = FakeProvider("fake")
    registry = Registry()
    registry.register("sync", fake, "tests 1")

    class Broken(FakeProvider):
        async def close(self) -> None:
            raise OSError("cannot")

    registry.register("sync", Broken("broken"), "tests 1")
    async with Services.open(settings, registry=registry) as services:
        await registry.initialized("sync", "fake", services)
        await registry.initialized("sync", "broken", services)
        with capture_logs():
            await services.close()
        await services.close()
    assert fake.closed == 1
    for use in (lambda: services.store("write", None), lambda: services.vector_store(None)):
        with pytest.raises(RuntimeError, match="closed"):
            use()


class Sentences(FakeProvider):
    """Every sentence is a fact."""

    kind = "fact_decomposition"

    async def decompose(self, source: SourceText, options: BaseModel) -> tuple[DecomposedFact, ...]:
        assert isinstance(options, AcmeOptions)
        sentences = [part.strip() for part in source.text.split(".") if part.strip()]
        return tuple(DecomposedFact(content=sentence) for sentence in sentences[: options.depth])


async def _of_kind(services: Services, kind: ProviderKind, slug: str = "world", **entry: JsonValue) -> Graph:
    return await services.graphs.add(GraphDraft(slug=slug, composition={kind: entry}))


@pytest.mark.long(after=2)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sync"])
async def test_every_kind_is_resolved_by_the_same_rules(services: Services, kind: ProviderKind) -> None:
    services.registry.register(kind, Sentences("words", options_model=AcmeOptions), "words-plugin 1.0")
    await _of_kind(services, kind, provider="words", options={"depth": 2})
    await _of_kind(services, kind, "missing", provider="ghost")
    await _of_kind(services, kind, "wrong", provider="words", options={"deep": 1})
    await _graph(services, "undeclared", provider="default")

    found = await resolve_provider(kind, services, "world")
    assert found.provider is not None
    assert (found.provider.id, found.distribution, found.options) == (
        "words", "words-plugin 1.0", AcmeOptions(depth=2)
    )  # fmt: skip
    assert (await resolve_provider(kind, services, None)).reason is FallbackReason.NO_GRAPH_CONTEXT
    assert (await resolve_provider(kind, services, "undeclared")).reason is FallbackReason.NOT_DECLARED
    with capture_logs() as logs:
        for _ in range(2):
            missing = await resolve_provider(kind, services, "missing")
            assert missing.reason is FallbackReason.NOT_INSTALLED
            assert f"{kind} provider 'ghost' (installed: words)" in missing.detail
    assert [(told["log_level"], told["kind"]) for told in logs] == [("warning", kind), ("debug", kind)]
    with pytest.raises(CompositionInvalid) as refused:
        await resolve_provider(kind, services, "wrong")
    assert refused.value.key == f"{kind}.options.deep"
    with pytest.raises(GraphNotFound):
        await resolve_provider(kind, services, "nowhere")


async def test_a_provider_of_one_kind_answers_for_no_other(services: Services) -> None:
    services.registry.register("fact_decomposition", Sentences("words"), "words-plugin 1.0")
    await _of_kind(services, "dimensions", provider="words")
    assert (await resolve_provider("dimensions", services, "world")).reason is FallbackReason.NOT_INSTALLED


@pytest.mark.parametrize(("on_missing", "error"), [("fail", ProviderMissing), ("hold", ProviderGone)])
async def test_whoever_may_not_fall_back_is_told_so(
    services: Services, on_missing: str, error: type[Exception]
) -> None:
    await _of_kind(services, "relations", provider="ghost", on_missing=on_missing)
    with pytest.raises(error, match="ghost"):
        (await resolve_provider("relations", services, "world")).answer()


class Consumer:
    """What the next consumer of a kind is: one activity."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @activity.defn(name="decompose_source")
    async def decompose_source(self, graph: str, source: SourceText) -> tuple[DecomposedFact, ...]:
        resolved = await resolve_fact_decomposition_provider(self._services, graph)
        answer = resolved.answer()
        if answer is None or resolved.options is None:
            return (DecomposedFact(content=source.text),)
        registry = self._services.registry
        provider = await registry.initialized("fact_decomposition", answer.id, self._services)
        return await provider.decompose(source, resolved.options)


async def test_the_next_consumer_is_one_activity(services: Services) -> None:
    words = Sentences("words", options_model=AcmeOptions)
    services.registry.register("fact_decomposition", words, "words-plugin 1.0")
    await _of_kind(services, "fact_decomposition", provider="words", options={"depth": 2})
    await _of_kind(services, "fact_decomposition", "plain", provider="ghost")
    consumer, source = Consumer(services), SourceText(key="s", text="One. Two. Three.")

    async def facts(graph: str) -> list[str]:
        decomposed = await ActivityEnvironment().run(consumer.decompose_source, graph, source)
        return [fact.content for fact in decomposed]

    assert await facts("world") == ["One", "Two"]
    assert await facts("world") == ["One", "Two"]
    assert words.initialized == 1
    assert await facts("plain") == ["One. Two. Three."]


async def test_a_shadow_is_resolved_apart_from_the_graph_and_never_falls_back(services: Services) -> None:
    composition: dict[str, JsonValue] = {
        "sync": {"provider": "default"},
        "shadow": {"provider": "acme", "options": {"depth": 3}},
    }
    await services.graphs.add(GraphDraft(slug="world", composition=composition))
    live = await resolve_sync_provider(services, "world")
    shadow = await resolve_sync_provider(services, "world", shadow=True)
    assert live.provider is not None
    assert shadow.provider is not None
    assert (live.provider.id, shadow.provider.id) == ("default", "acme")
    assert shadow.options == AcmeOptions(depth=3)

    ghost: JsonValue = {"provider": "ghost", "on_missing": "fallback"}
    await services.graphs.update("world", GraphChanges(composition={**composition, "shadow": ghost}))
    missing = await resolve_sync_provider(services, "world", shadow=True)
    assert missing.entry is not None
    assert (missing.reason, missing.entry.on_missing) == (FallbackReason.NOT_INSTALLED, "hold")

    await services.graphs.update("world", GraphChanges(composition={"sync": {"provider": "default"}}))
    with pytest.raises(ShadowInvalid, match="declares no `shadow`"):
        await resolve_sync_provider(services, "world", shadow=True)
