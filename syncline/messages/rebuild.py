"""Messages about rebuilding a graph: the steps of it, and how far it is."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from syncline import names
from syncline.messages.base import GraphName, Message, Who, Why
from syncline.messages.embedding import LiveAlias
from syncline.messages.operator import OperationInput

__all__ = ["ChangeRebuildInput", "DescribeRebuildInput", "RebuildAction", "RebuildState", "RebuildStatus"]

RebuildAction = Literal["start", "switch", "rollback", "drop"]
RebuildState = Literal["none", "interrupted", "filling", "ready", "switched"]


class DescribeRebuildInput(OperationInput):
    """Input of `DescribeRebuild`: `{"graph": "world"}`."""

    workflow = names.DESCRIBE_REBUILD
    summary_format = "Show the rebuild of {graph}"

    graph: GraphName


class ChangeRebuildInput(OperationInput):
    """Input of `ChangeRebuild`: `{"graph": "world", "action": "start"}`. Its result is the state after."""

    workflow = names.CHANGE_REBUILD
    summary_format = "Rebuild {graph}: {action}"

    graph: GraphName
    action: RebuildAction
    rows_per_second: int | None = Field(default=None, ge=0)
    """Of `start`: how many rows its cycles read in a second, about; 0: no limit; null: as it was."""
    keep_seconds: int | None = Field(default=None, ge=0)
    """Of `switch`: for how long the generation before is to be kept; null: seven days, or as it was told.
    It is never dropped by itself."""
    anyway: bool = False
    """Of `switch` and `rollback`: even if the other generation was not found equal, lacks something, or
    something of others stays behind. Of `drop`: even if others have something in what is dropped."""
    who: Who = ""
    """Kept in the audit, with who has started the run."""
    why: Why = ""

    @property
    def changes(self) -> bool:
        """Always true."""
        return True


class RebuildStatus(Message):
    """Result of `DescribeRebuild` and of `ChangeRebuild`."""

    graph: str
    state: RebuildState
    """`filling`, `ready`: readers see the old generation. `switched`: they see the new one, and the old one
    is kept in step. `interrupted`: run the step again that `command` names."""
    started_at: datetime | None = None
    rows_per_second: int | None = None
    kept_until: datetime | None = None
    """Of `switched`: until when the old generation was to be kept."""
    schema_name: str | None = None
    """The schema of the generation that readers do not see."""
    rows: int = 0
    """Its rows, by the server's statistics."""
    live_rows: int = 0
    """Those of the generation that readers see."""
    behind: tuple[str, ...] = ()
    """What it lacks of what readers see, in sentences."""
    obstacles: tuple[str, ...] = ()
    """Why a start would be refused now, or what a switch would leave behind, in sentences."""
    aliases: tuple[LiveAlias, ...] = ()
    """By what readers query the vector store; the generations of these are those of the embedding."""
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
