"""The embedding of a graph is changed: readers who query the alias see one model at a time, all of it.

Each verb is stopped after each of its steps, a cycle runs, and the verb is run again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from syncline.control.embedding_record import EmbeddingRecords
from syncline.control.graphs import GraphChanges, GraphRepository
from syncline.control.vector_rules import VectorRules
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.errors import EmbeddingChangeRefused
from syncline.messages.base import GraphStatus
from syncline.messages.embedding import EmbeddingStatus
from syncline.operator import embedding_change
from syncline.operator.embedding_change import drop, refuse_while_changing, rollback, start, switch
from syncline.operator.embedding_plan import plan_embedding
from syncline.operator.embedding_state import describe_embedding, read_embeddings
from syncline.operator.health.check import CheckStatus
from syncline.operator.health.embeddings import check_second_embedding
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from tests.kit.cases import further
from tests.kit.two_models import ACTOR, TwoModels, two_models

ALIAS = "kg_nodes.live"
Verb = Callable[..., AsyncIterator[str]]


class _StoppedError(Exception):
    """The worker died here."""


@pytest.fixture
async def models(migrated: tuple[str, str], tmp_path: Path) -> AsyncIterator[TwoModels]:
    texts = [f"node {number}" for number in range(1, 6)]
    async with two_models(*migrated, tmp_path, texts) as found:
        yield found


async def do(models: TwoModels, verb: Verb, **options: object) -> list[str]:
    return [
        done async for done in verb(models.services, models.graph, KNOWLEDGE_GRAPH, actor=ACTOR, **options)
    ]


async def state(models: TwoModels) -> EmbeddingStatus:
    return await describe_embedding(await read_embeddings(models.services, models.graph, KNOWLEDGE_GRAPH))


async def seen(models: TwoModels, *collections: tuple[str, str]) -> None:
    """All nodes are found in each collection by its model, and there is nothing else."""
    for collection, model in collections:
        assert await models.found(collection, model) == models.texts.keys()
        assert len(await models.points(collection)) == len(models.texts)


async def test_readers_see_one_model_at_a_time_and_each_text_is_paid_once_per_model(
    models: TwoModels,
) -> None:
    await seen(models, (ALIAS, "old"))
    assert (await state(models)).command == "syncline embedding plan kg"
    plan = await plan_embedding(models.services, models.graph, KNOWLEDGE_GRAPH)
    assert (plan.points, plan.texts, plan.obstacles, plan.tokens_from) == (5, 5, (), "estimate")
    assert plan.second is not None
    assert (plan.second.embedding, plan.second.reached) == ("openai-new-8", True)
    assert plan.second.setting == "SYNCLINE_SECOND_EMBEDDING"
    assert models.new.embedded.pop("syncline") == 1

    assert await do(models, start)
    assert models.new.embedded.pop("syncline") == 1
    assert await do(models, start) == []
    with pytest.raises(EmbeddingChangeRefused, match="lacks 5 points that openai-old-8 has"):
        await do(models, switch, patience=0)
    with pytest.raises(EmbeddingChangeRefused, match="embedding status kg"):
        await refuse_while_changing(models.services, models.graph, action="set")
    assert (await state(models)).command == "syncline embedding status kg"
    await models.cycle()
    found = await state(models)
    assert [(one.role, one.live, one.confirmed, one.owed) for one in found.generations] == [
        ("main", True, 5, 0),
        ("second", False, 5, 0),
    ]
    assert found.command == "syncline embedding switch kg"
    await seen(models, (ALIAS, "old"), ("kg_nodes", "old"), ("kg_nodes.2", "new"))

    await do(models, switch)
    assert await do(models, switch) == []
    await seen(models, (ALIAS, "new"))
    await models.put("n1", "changed")
    await models.put("n2", None)
    await models.put("n6", "node 6")
    await models.cycle()
    await seen(models, (ALIAS, "new"), ("kg_nodes", "old"))

    await do(models, rollback)
    assert await do(models, rollback) == []
    await seen(models, (ALIAS, "old"), ("kg_nodes.2", "new"))
    await do(models, switch)
    assert (await state(models)).command == "syncline embedding drop kg"
    assert (await models.verified()).equal
    await do(models, drop)
    await seen(models, (ALIAS, "new"))
    assert await models.points("kg_nodes") == set()
    await models.put("n7", "node 7")
    await models.cycle()
    await seen(models, (ALIAS, "new"), ("kg_nodes.2", "new"))
    assert (await models.verified()).equal
    found = await state(models)
    assert [(one.generation, one.embedding, one.setting) for one in found.generations] == [
        (2, "openai-new-8", "SYNCLINE_SECOND_EMBEDDING")
    ]
    assert await refuse_while_changing(models.services, models.graph, action="set") == 2
    paid = dict.fromkeys([*(f"node {number}" for number in range(1, 7)), "changed"], 1)
    assert dict(models.old.embedded) == paid
    assert dict(models.new.embedded) == {**paid, "node 7": 1}
    audit = await models.services.graphs.audited("kg", limit=10)
    assert {entry.action for entry in audit.entries} >= {
        "embedding-start",
        "embedding-switch",
        "embedding-rollback",
        "embedding-drop",
    }


async def test_plan_tells_what_texts_have_cost_and_the_limit_that_takes_longest(
    migrated: tuple[str, str], tmp_path: Path
) -> None:
    limits = {
        "second_embedding_tokens_per_minute": 5,
        "second_embedding_requests_per_minute": 60,
        "second_embedding_tokens_per_day": 20,
    }
    texts = [f"node {number}" for number in range(1, 6)]
    async with two_models(*migrated, tmp_path, texts, settings=limits) as models:
        services, graph = models.services, models.graph
        async with services.usage.cycle(
            graph, slug="kg", run_id="r", service=services.embedding, batch=8
        ) as (embedding, _):
            await embedding.embed(texts)
        plan = await plan_embedding(services, graph, KNOWLEDGE_GRAPH)
        assert (plan.tokens, plan.tokens_from) == (10, "ledger")
        assert (plan.seconds, plan.limited_by) == (120, "SYNCLINE_SECOND_EMBEDDING_TOKENS_PER_MINUTE")
        tight = GraphChanges(vectors=VectorRules(tokens_per_day=4))
        graph = await services.graphs.update(graph.id, tight)
        plan = await plan_embedding(services, graph, KNOWLEDGE_GRAPH)
        assert plan.seconds == 2 * 86_400
        assert plan.limited_by == "syncline graph set kg --tokens-per-day"


async def test_doctor_and_the_plan_name_the_workers_and_settings_of_the_second_service(
    models: TwoModels,
) -> None:
    [check] = await check_second_embedding(models.services)
    assert (check.status, check.found) == (CheckStatus.OK, "openai-new-8, 8 dimensions")
    await models.services.workers.upsert(registration("syncline@old", embeddings=["openai-old-8"]))
    plan = await plan_embedding(models.services, models.graph, KNOWLEDGE_GRAPH)
    assert plan.second is not None
    assert (plan.main.lacking, plan.second.lacking) == ((), ("syncline@old",))


def registration(identity: str, **more: object) -> dict[str, object]:
    """Return what a worker registers."""
    return {
        "id": uuid4(),
        "identity": identity,
        "task_queue": "q",
        "syncline_version": "0.1.0",
        "python_version": "3.11",
        "problems": [],
        "unusable": [],
        **more,
    }


async def test_workers_that_know_one_generation_are_beside_neither_start_nor_end(models: TwoModels) -> None:
    workers, earlier = models.services.workers, registration("syncline@earlier")
    await workers.upsert(earlier)
    with pytest.raises(EmbeddingChangeRefused, match=r"syncline@earlier \(0\.1\.0\)"):
        await do(models, start)
    await workers.delete(earlier["id"])  # type: ignore[arg-type]
    await do(models, start)
    await models.cycle()
    await do(models, switch)
    await workers.upsert(earlier)
    with pytest.raises(EmbeddingChangeRefused, match="one generation"):
        await do(models, drop)
    await do(models, rollback)
    # What goes is then the second, of which they know nothing.
    await do(models, drop)
    assert len((await state(models)).generations) == 1


async def test_change_that_is_given_up_leaves_what_was_there_and_another_can_follow(
    models: TwoModels,
) -> None:
    await do(models, start)
    await models.cycle()
    await do(models, drop)
    await seen(models, (ALIAS, "old"))
    assert await models.points("kg_nodes.2") == set()
    with pytest.raises(EmbeddingChangeRefused, match="one embedding only"):
        await do(models, drop)
    await do(models, start)
    await models.cycle()
    await do(models, switch)
    await seen(models, (ALIAS, "new"), ("kg_nodes.3", "new"))
    assert (await models.verified()).equal


async def test_switch_needs_what_the_main_one_has_and_a_text_that_only_the_second_refuses_is_told(
    models: TwoModels,
) -> None:
    models.new.refuses = lambda text: text == "node 3"
    await do(models, start)
    await models.cycle()
    with pytest.raises(EmbeddingChangeRefused, match="refuses 1 text that it does not"):
        await do(models, switch)
    await do(models, switch, anyway=True)
    assert await models.found(ALIAS, "new") == models.texts.keys() - {"n3"}
    await do(models, rollback)
    await seen(models, (ALIAS, "old"))


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("changes", "embedding", "problem"),
    [
        (GraphChanges(status=GraphStatus.ARCHIVED), None, "archived"),
        (
            GraphChanges(composition={"sync": {"provider": "default"}, "shadow": {"provider": "default"}}),
            None,
            "has a shadow",
        ),
        (None, "openai-old-8", "made with 'openai-old-8' already"),
        (None, "openai-other-8", "offers no embedding 'openai-other-8', only openai-old-8, openai-new-8"),
    ],
    ids=["archived", "a shadow", "the same", "another"],
)
async def test_start_is_refused_and_changes_nothing(
    models: TwoModels, changes: GraphChanges | None, embedding: str | None, problem: str
) -> None:
    if changes is not None:
        models.graph = await models.services.graphs.update(models.graph.id, changes)
    with pytest.raises(EmbeddingChangeRefused, match=problem) as refused:
        await do(models, start, embedding=embedding)
    assert refused.value.fix
    assert len((await state(models)).generations) == 1
    plan = await plan_embedding(models.services, models.graph, KNOWLEDGE_GRAPH, embedding=embedding)
    assert any(problem in obstacle for obstacle in plan.obstacles)


async def test_start_is_refused_if_the_second_service_does_not_answer(models: TwoModels) -> None:
    models.new.refuses = lambda _: True
    with pytest.raises(EmbeddingChangeRefused, match="does not answer") as refused:
        await do(models, start)
    assert "SYNCLINE_SECOND_EMBEDDING_URL" in str(refused.value.fix)
    assert len((await state(models)).generations) == 1


class _Steps:
    """Lets so many steps of a verb through to databases and vector store, and dies before the next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 10**6
        self.passed = 0
        for place, names in (
            (EmbeddedQdrantStore, ("ensure_collection", "set_aliases", "drop_collection")),
            (EmbeddingRecords, ("put", "remove")),
            (GraphRepository, ("audit",)),
            (embedding_change, ("start_second", "mark_switched", "make_second_main", "drop_second")),
        ):
            for name in names:
                monkeypatch.setattr(place, name, self._counted(getattr(place, name)))

    def _counted(self, step: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def counted(*arguments: object, **options: object) -> object:
            if self.left == 0:
                raise _StoppedError
            self.left -= 1
            self.passed += 1
            return await step(*arguments, **options)

        return counted


async def _only_right_vectors(models: TwoModels, live: set[str]) -> None:
    """Nothing is found by another model than a collection's, and readers find all by one model."""
    for collection, model in (("kg_nodes", "old"), ("kg_nodes.2", "new")):
        right = await models.ever(collection, model)
        assert len(await models.points(collection)) == len(right)
    finding = {model for model in ("old", "new") if await models.found(ALIAS, model) == models.texts.keys()}
    assert finding
    assert finding <= live
    assert len(await models.points(ALIAS)) == len(models.texts)


@pytest.mark.long(after=2)
@pytest.mark.parametrize(
    ("before", "verb", "least", "live"),
    [
        ([], start, 6, {"old"}),
        ([start], switch, 5, {"old", "new"}),
        ([start, switch], drop, 4, {"new"}),
        *further(([start, switch], rollback, 5, {"old", "new"}), ([start], drop, 4, {"old"})),
    ],
    ids=["start", "switch", "drop the first", "rollback", "drop the second"],
)
async def test_verb_that_dies_after_any_step_is_run_again(
    models: TwoModels,
    monkeypatch: pytest.MonkeyPatch,
    before: list[Verb],
    verb: Verb,
    least: int,
    live: set[str],
) -> None:
    for earlier in before:
        await do(models, earlier)
        await models.cycle()
    steps, deaths = _Steps(monkeypatch), 0
    while True:
        steps.left, steps.passed = deaths, 0
        try:
            await do(models, verb)
        except _StoppedError:
            deaths += 1
        else:
            break
        finally:
            steps.left = 10**6
        await models.put("n1", f"changed {deaths}")
        await models.put(f"more {deaths}", f"more text {deaths}")
        await models.cycle()
        await _only_right_vectors(models, live)
    assert deaths >= least
    await models.cycle()
    await _only_right_vectors(models, live)
    assert (await models.verified()).equal
    found = await state(models)
    assert all(one.role != "left" for one in found.generations)
    assert set(models.old.embedded.values()) == {1}
    models.new.embedded.pop("syncline")
    assert set(models.new.embedded.values()) <= {1}
