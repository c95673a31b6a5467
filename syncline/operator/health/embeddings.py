"""Health checks of the embedding service: one word is embedded, and the budgets of tokens."""

from collections.abc import Awaitable, Sequence
from http import HTTPStatus
from typing import Final

from syncline.control.graphs import Graph
from syncline.control.readiness import for_development, reach_embedding
from syncline.control.services import Services
from syncline.control.usage import budgets_in_force, read_budgets
from syncline.embeddings.service import EmbeddingService, Vectors
from syncline.errors import EmbeddingUnavailable, StoreError
from syncline.messages.usage import BudgetState
from syncline.operator.health.check import Check, CheckStatus, listed
from syncline.settings import FIRST_EMBEDDING, SECOND_EMBEDDING

__all__ = ["check_budgets", "check_embedding", "check_second_embedding"]

_RAISE: Final = {
    "graph": "Raise it by `syncline graph set GRAPH --tokens-per-day N`.",
    "service": "Raise {}_TOKENS_PER_DAY of all workers.",
}

_LIMITED: Final = (
    "Texts are sent again by themselves. If it comes often, give the workers a lower "
    "{}_REQUESTS_PER_MINUTE or _TOKENS_PER_MINUTE, or the account a higher limit or quota."
)


async def check_embedding(services: Services) -> Sequence[Check]:
    """Return the check that the service embeds. A limit that is reached is no fault of its settings."""
    return await _check("embedding", services, reach_embedding(services), services.embedding)


async def check_second_embedding(services: Services) -> Sequence[Check]:
    """Return the same check of the second service, if the worker has one."""
    second = services.second_embedding
    if second is None:
        return []
    return await _check("second embedding", services, second.embed(["syncline"]), second)


async def _check(
    name: str, services: Services, reached: Awaitable[Vectors], service: EmbeddingService
) -> Sequence[Check]:
    try:
        vectors = await reached
    except EmbeddingUnavailable as error:
        if error.until is None and error.status != HTTPStatus.TOO_MANY_REQUESTS:
            raise
        variables = FIRST_EMBEDDING if service is services.embedding else SECOND_EMBEDDING
        return [Check(name=name, status=CheckStatus.FAIL, found=str(error), fix=_LIMITED.format(variables))]
    found = f"{service.name}, {vectors.shape[1]} dimensions"
    unfit = for_development(services.settings).get(f"{name.removesuffix('embedding')}development embedding")
    return [
        Check(name=name, status=CheckStatus.OK if unfit is None else CheckStatus.WARN, found=found, fix=unfit)
    ]


async def check_budgets(services: Services, graphs: Sequence[Graph]) -> Sequence[Check]:
    """Return the check of today's budgets, if there are any: texts wait while one is spent."""
    name = "embedding: budgets"
    budgets = budgets_in_force(graphs, services=services.service_budgets)
    if not budgets:
        return []
    try:
        found = await read_budgets(services.control, budgets)
    except StoreError:
        return [Check(name=name, status=CheckStatus.SKIP, found="see the check of control plane")]
    spent = [budget for budget in found if budget.used + budget.held >= budget.budget]
    if not spent:
        return [Check(name=name, found=f"none of {len(found):,} is spent today (UTC)")]
    offered = services.service_budgets
    ways = " ".join(
        dict.fromkeys(
            _RAISE[budget.scope].format(offered[budget.name].variables if budget.name in offered else "")
            for budget in spent
        )
    )
    return [
        Check(
            name=name,
            status=CheckStatus.WARN,
            found=listed([_spent(budget) for budget in spent]),
            fix=f"{ways} Until then, or midnight UTC, texts wait.",
        )
    ]


def _spent(budget: BudgetState) -> str:
    held = f", and {budget.held:,} are held" if budget.held else ""
    return (
        f"{budget.scope} '{budget.name}' has used {budget.used:,} of its {budget.budget:,} tokens for "
        f"today{held}"
    )
