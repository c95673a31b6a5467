"""Health checks of the embedding service: one word is embedded, and the budgets of tokens."""

from collections.abc import Sequence
from typing import Final

from syncline.control.graphs import Graph
from syncline.control.readiness import for_development, reach_embedding
from syncline.control.services import Services
from syncline.control.usage import budgets_in_force, read_budgets
from syncline.errors import EmbeddingUnavailable, StoreError
from syncline.operator.health.check import Check, CheckStatus, listed

__all__ = ["check_budgets", "check_embedding"]

_PAUSED: Final = (
    "It goes on by itself then. If it comes often, give the workers a lower "
    "SYNCLINE_EMBEDDING_REQUESTS_PER_MINUTE or _TOKENS_PER_MINUTE, or the service a higher limit."
)


async def check_embedding(services: Services) -> Sequence[Check]:
    """Return the check that the service embeds; a pause that it asked for is no fault of its settings."""
    name = "embedding"
    try:
        vectors = await reach_embedding(services)
    except EmbeddingUnavailable as error:
        if error.until is None:
            raise
        return [Check(name=name, status=CheckStatus.FAIL, found=str(error), fix=_PAUSED)]
    found = f"{services.embedding.name}, {vectors.shape[1]} dimensions"
    fix = for_development(services.settings).get("development embedding")
    return [
        Check(name=name, status=CheckStatus.OK if fix is None else CheckStatus.WARN, found=found, fix=fix)
    ]


async def check_budgets(services: Services, graphs: Sequence[Graph]) -> Sequence[Check]:
    """Return the check of today's budgets, if there are any: texts wait while one is spent."""
    name = "embedding: budgets"
    budgets = budgets_in_force(
        graphs, service=services.embedding.name, tokens_per_day=services.settings.embedding_tokens_per_day
    )
    if not budgets:
        return []
    try:
        found = await read_budgets(services.control, budgets)
    except StoreError:
        return [Check(name=name, status=CheckStatus.SKIP, found="see the check of control plane")]
    spent = [budget for budget in found if budget.used + budget.held >= budget.budget]
    if not spent:
        return [Check(name=name, found=f"none of {len(found):,} is spent today (UTC)")]
    return [
        Check(
            name=name,
            status=CheckStatus.WARN,
            found=listed(
                [
                    f"{'graph' if budget.scope == 'graph' else 'service'} '{budget.name}' has used "
                    f"{budget.used:,} of its {budget.budget:,} tokens for today"
                    + (f", and {budget.held:,} are held" if budget.held else "")
                    for budget in spent
                ]
            ),
            fix=" ".join(dict.fromkeys(_RAISE[budget.scope] for budget in spent))
            + " Until then, or midnight UTC, texts wait.",
        )
    ]


_RAISE: Final = {
    "graph": "Raise it by `syncline graph set GRAPH --tokens-per-day N`.",
    "service": "Raise SYNCLINE_EMBEDDING_TOKENS_PER_DAY of all workers.",
}
