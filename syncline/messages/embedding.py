"""Messages about changing the embedding of a graph: what it would take, how far it is, and its steps."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from syncline import names
from syncline.messages.base import GraphName, Message, Who, Why
from syncline.messages.operator import OperationInput

__all__ = [
    "ChangeEmbeddingInput",
    "DescribeEmbeddingInput",
    "EmbeddingAction",
    "EmbeddingPlan",
    "EmbeddingStatus",
    "GenerationState",
    "LiveAlias",
    "PlanEmbeddingInput",
    "PlannedEmbedding",
]

EmbeddingAction = Literal["start", "switch", "rollback", "drop"]


class PlanEmbeddingInput(OperationInput):
    """Input of `PlanEmbedding`: `{"graph": "world"}`. Nothing is written."""

    workflow = names.PLAN_EMBEDDING
    summary_format = "Plan another embedding of {graph}"

    graph: GraphName
    embedding: str | None = Field(default=None, min_length=1, max_length=600)
    """The new one, as messages name it; null: the other one that the worker offers."""


class DescribeEmbeddingInput(OperationInput):
    """Input of `DescribeEmbedding`: `{"graph": "world"}`."""

    workflow = names.DESCRIBE_EMBEDDING
    summary_format = "Show the embeddings of {graph}"

    graph: GraphName


class ChangeEmbeddingInput(OperationInput):
    """Input of `ChangeEmbedding`: `{"graph": "world", "action": "start"}`. Its result is the state after."""

    workflow = names.CHANGE_EMBEDDING
    summary_format = "Change the embedding of {graph}: {action}"

    graph: GraphName
    action: EmbeddingAction
    embedding: str | None = Field(default=None, min_length=1, max_length=600)
    """Of `start`: the new one, as messages name it; null: the other one that the worker offers."""
    anyway: bool = False
    """Of `switch`: even if the second generation lacks points that the main one has."""
    who: Who = ""
    """Kept in the audit, with who has started the run."""
    why: Why = ""

    @property
    def changes(self) -> bool:
        """Always true."""
        return True


class PlannedEmbedding(Message):
    """An embedding of a plan."""

    embedding: str
    dimensions: int | None = None
    setting: str | None = None
    """What the names of its settings begin with in the worker that answered; null if it does not offer it."""
    reached: bool | None = None
    """Whether it has embedded a word just now; null: it was not asked."""
    error: str | None = None
    """Why it has not."""
    lacking: tuple[str, ...] = ()
    """Registered workers that do not offer it: they write none of its vectors."""


class LiveAlias(Message):
    """The name by which readers query a collection, and what it leads to."""

    alias: str
    collection: str | None = None
    """Null: there is no such alias yet; `start` makes it."""
    generation: int | None = None
    """Null too if it leads to a collection that is none of the graph's."""


class EmbeddingPlan(Message):
    """Result of `PlanEmbedding`: what another embedding would take."""

    graph: str
    main: PlannedEmbedding
    second: PlannedEmbedding | None = None
    """The new one; null if no worker offers one."""
    obstacles: tuple[str, ...] = ()
    """Why `start` would be refused now."""
    points: int = 0
    texts: int = 0
    """Different texts: a cycle has equal ones embedded once."""
    tokens: int = 0
    """What they cost, about."""
    tokens_from: Literal["ledger", "estimate"] = "estimate"
    """Whether that is by what texts of this graph have cost so far, or by their length."""
    seconds: float | None = None
    """How long it takes at least, by the limits and budgets that are set; null: there are none."""
    limited_by: str | None = None
    """The limit that makes it so long."""
    aliases: tuple[LiveAlias, ...] = ()


class GenerationState(Message):
    """One generation of a graph's collections."""

    generation: int
    role: Literal["main", "second", "left"]
    """`left`: what an interrupted `drop` has left; run it again."""
    embedding: str | None = None
    dimensions: int | None = None
    live: bool = False
    """Whether readers look at it."""
    confirmed: int = 0
    """Points that the vector store has, with vectors of this embedding."""
    owed: int = 0
    """Points that are queued."""
    refused: int = 0
    """Points that the service or the store refuses."""
    since: datetime | None = None
    filled_at: datetime | None = None
    """When it first owed nothing."""
    switched_at: datetime | None = None
    """Since when readers look at the second one."""
    setting: str | None = None
    """What the names of its settings begin with in the worker that answered; null if it does not offer it."""
    error: str | None = None
    """What delays it."""


class EmbeddingStatus(Message):
    """Result of `DescribeEmbedding` and of `ChangeEmbedding`."""

    graph: str
    generations: tuple[GenerationState, ...] = ()
    aliases: tuple[LiveAlias, ...] = ()
    did: tuple[str, ...] = ()
    """What this run did, a sentence each; none if all was done before."""
    next: str = ""
    """What to do next, in a sentence."""
    command: str | None = None
    """The command of that; null if nothing is to be done."""

    @property
    def outcome(self) -> str:
        """What was done, and what comes next."""
        return " ".join([*self.did, self.next])
