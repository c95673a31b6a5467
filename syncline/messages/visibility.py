"""Messages about what is visible of a writer's transaction."""

from enum import StrEnum
from typing import Self

from pydantic import Field

from syncline import names
from syncline.messages.base import GraphName, Message
from syncline.messages.operator import OperationInput

__all__ = ["Visibility", "VisibilityState", "WaitVisibleInput"]


class VisibilityState(StrEnum):
    """How far a transaction is; more states may be added."""

    VISIBLE = "visible"
    PENDING = "pending"
    """No run has applied it yet: the reason says what it waits for, as far as that is known."""
    PARKED = "parked"
    """Rows of it are parked under rows that have not arrived."""
    REJECTED = "rejected"
    """The graph-db rejected a row of it."""
    COVERED = "covered"
    """Later versions that may be of its rows are parked or rejected."""
    VECTORS_DELAYED = "vectors_delayed"
    """It is visible in the graph-db; vectors wait for a service or for a retry."""
    PAUSED = "paused"
    """It is not visible, and no run will come: the graph or its Schedule is paused."""


class WaitVisibleInput(OperationInput):
    """Input of `WaitVisible`."""

    workflow = names.WAIT_VISIBLE
    summary_format = "Wait until a write is visible in graph {graph}"

    graph: GraphName
    token: str = Field(max_length=100)
    """What `SELECT syncline.token()` returned in the transaction of the write."""
    vectors: bool = False
    """Wait for its vectors too."""
    seconds: float = Field(default=60.0, ge=0.0, le=3600.0)
    """How long to wait; then the result says why it is not visible."""


class Visibility(Message):
    """Result of `WaitVisible`: what was known of the transaction when the wait ended."""

    graph: str
    visible: bool
    """Whether readers of the graph-db see everything that the transaction wrote, or later versions of it."""
    vectors: bool
    """Whether its vectors are written too."""
    state: VisibilityState
    reason: str | None = None
    """Why not, in a sentence."""
    waited_seconds: float = 0.0

    @classmethod
    def unanswered(cls, graph: str, *, seconds: float) -> Self:
        """Return what is known where no worker has answered in so many seconds."""
        return cls(
            graph=graph,
            visible=False,
            vectors=False,
            state=VisibilityState.PENDING,
            reason="no worker has answered: `syncline doctor` says what is wrong with them",
            waited_seconds=seconds,
        )
