"""What another embedding of a graph would take: texts, tokens, time, and what stands in its way."""

from collections.abc import Mapping, Sequence

from syncline.control.embedding_record import EmbeddingRecord
from syncline.control.graphs import Graph
from syncline.control.offered import OfferedEmbedding
from syncline.control.services import Services
from syncline.control.usage import read_usage
from syncline.engine.render.kept import live
from syncline.engine.table_map import SchemaMap
from syncline.errors import EmbeddingChangeRefused, EmbeddingError
from syncline.messages.embedding import EmbeddingPlan, PlannedEmbedding
from syncline.operator.embedding_candidate import candidate, obstacles
from syncline.operator.embedding_state import GraphEmbeddings, read_embeddings
from syncline.operator.schema import reading, sql
from syncline.sql import quoted

__all__ = ["plan_embedding"]

_BYTES_PER_TOKEN = 4
"""Of English text, with the tokenizers of today's models."""
_DAY, _MINUTE = 86_400.0, 60.0
_MONTHS = 100


async def plan_embedding(
    services: Services, graph: Graph, schema_map: SchemaMap, *, embedding: str | None = None
) -> EmbeddingPlan:
    """Return the plan; nothing is written, and one word is embedded by the new service."""
    found = await read_embeddings(services, graph, schema_map)
    reasons, chosen = [problem for problem, _ in obstacles(found)], None
    second = found.generations.second
    if second is not None:
        recorded = found.records.get(second.generation)
        named = "another one" if recorded is None else recorded.embedding
        reasons.append(f"it is being changed to {named} already")
    try:
        chosen = candidate(found, embedding)
    except EmbeddingChangeRefused as refused:
        reasons.append(refused.problem)
    main = found.records.get(found.generations.main)
    points, texts = await _texts(found)
    per_text = await _tokens_per_text(found, main)
    tokens = round(texts * (per_text or await _estimated(found, schema_map)))
    lacking = await _lacking(services)
    new = None if chosen is None else await _asked(chosen, lacking)
    if new is not None and new.error is not None:
        reasons.append(f"the second embedding does not answer. {new.error}")
    seconds, limited_by = (None, None) if chosen is None else _least(chosen, graph, texts, tokens)
    return EmbeddingPlan(
        graph=graph.slug,
        main=PlannedEmbedding(
            embedding=services.embedding.name if main is None else main.embedding,
            dimensions=services.embedding.dimensions if main is None else main.dimensions,
            setting=services.offered[0].variables if main is None else found.setting_of(main),
            lacking=() if main is None else lacking(main.embedding),
        ),
        second=new,
        obstacles=tuple(reasons),
        points=points,
        texts=texts,
        tokens=tokens,
        tokens_from="estimate" if per_text is None else "ledger",
        seconds=seconds,
        limited_by=limited_by,
        aliases=tuple(found.aliases),
    )


async def _texts(found: GraphEmbeddings) -> tuple[int, int]:
    """Return how many points there are, and how many different texts; those that wait count as different."""
    async with reading(found.target) as connection:
        row = await connection.fetchrow(sql("embedding_texts"), list(found.collections))
    return row["points"] + row["waiting"], row["texts"] + row["waiting"]


async def _tokens_per_text(found: GraphEmbeddings, main: EmbeddingRecord | None) -> float | None:
    """Return what a text of this graph has cost by the ledger; None if no service has counted it."""
    used = await read_usage(found.services.control, found.graph, month=None, limit=_MONTHS, budgets={})
    counted = [
        line
        for line in used.months
        if main is not None and line.service == main.embedding and not line.estimated and line.tokens
    ]
    texts = sum(line.texts for line in counted)
    return sum(line.tokens for line in counted) / texts if texts else None


async def _estimated(found: GraphEmbeddings, schema_map: SchemaMap) -> float:
    """Return about how many tokens a text has, by the length of the first ones of each table."""
    texts = size = 0
    async with reading(found.target) as connection:
        for table in schema_map:
            if table.vector is None:
                continue
            rows = live(schema_map, table) or quoted(table.name)
            query = sql("embedding_length", text=table.vector.text, target=f"{rows} t")
            row = await connection.fetchrow(query)
            texts, size = texts + row["texts"], size + row["bytes"]
    return size / texts / _BYTES_PER_TOKEN if texts else 0.0


class _Lacking:
    """Which workers do not offer an embedding, by what each has registered."""

    def __init__(self, offers: Mapping[str, Sequence[str]]) -> None:
        self._offers = offers

    def __call__(self, embedding: str) -> tuple[str, ...]:
        return tuple(worker for worker, offered in self._offers.items() if embedding not in offered)


async def _lacking(services: Services) -> _Lacking:
    return _Lacking({worker.identity: worker.embeddings for worker in await services.workers.list()})


async def _asked(chosen: OfferedEmbedding, lacking: _Lacking) -> PlannedEmbedding:
    error = None
    try:
        await chosen.service.embed(["syncline"])
    except EmbeddingError as failure:
        error = str(failure)
    return PlannedEmbedding(
        embedding=chosen.service.name,
        dimensions=chosen.service.dimensions,
        setting=chosen.variables,
        reached=error is None,
        error=error,
        lacking=lacking(chosen.service.name),
    )


def _least(
    chosen: OfferedEmbedding, graph: Graph, texts: int, tokens: int
) -> tuple[float | None, str | None]:
    """Return the seconds that the tightest limit makes of it, and that limit; None and None without any."""
    settings, variables = chosen.settings, chosen.variables
    found: dict[str, float] = {}
    if settings.embedding_requests_per_minute is not None:
        requests = texts / settings.embedding_batch
        found[f"{variables}_REQUESTS_PER_MINUTE"] = (
            requests / settings.embedding_requests_per_minute * _MINUTE
        )
    if settings.embedding_tokens_per_minute is not None:
        found[f"{variables}_TOKENS_PER_MINUTE"] = tokens / settings.embedding_tokens_per_minute * _MINUTE
    budgets = {
        f"{variables}_TOKENS_PER_DAY": settings.embedding_tokens_per_day,
        f"syncline graph set {graph.slug} --tokens-per-day": graph.vectors.tokens_per_day,
    }
    # What a day's budget pays for is done within that day.
    found.update({name: tokens // budget * _DAY for name, budget in budgets.items() if budget is not None})
    if not found:
        return None, None
    name = max(found, key=lambda name: found[name])
    return found[name], name
