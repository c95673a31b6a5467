"""Messages about what embeddings used: the ledger's lines, and the state of budgets."""

from datetime import datetime
from uuid import UUID

from syncline.messages.base import Message

__all__ = ["BudgetState", "UsageLine", "UsageReport"]


class UsageLine(Message):
    """What was used of one embedding service, in a month or in one of its runs."""

    graph_id: UUID
    graph: str
    """Slug of the graph, or of its shadow."""
    service: str
    month: str
    """`YYYY-MM`, in UTC."""
    run_id: str | None = None
    """Null: the sum of the month."""
    texts: int
    tokens: int
    estimated: int
    """Those of the tokens that the service did not count itself."""
    requests: int
    refused: int
    """Texts of requests that the service refused or did not answer."""
    first_at: datetime
    last_at: datetime


class BudgetState(Message):
    """A budget of tokens, and what is used of it today (UTC)."""

    scope: str
    """`graph` or `service`."""
    name: str
    budget: int
    used: int
    held: int
    """The most that requests under way may use, and those that were never answered."""


class UsageReport(Message):
    """Result of `ListUsage`."""

    months: tuple[UsageLine, ...] = ()
    runs: tuple[UsageLine, ...] = ()
    """The newest runs, if a graph was named."""
    budgets: tuple[BudgetState, ...] = ()
