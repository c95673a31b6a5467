"""What operators ask and do about rows that did not land: dead letters, parked rows, one row explained."""

from syncline.operations.dead_letters import (
    AuditEntry,
    AuditPage,
    DeadLetter,
    DeadLetterPage,
    DeadLetterState,
    FailureGroup,
    FailureSummary,
    Selection,
    discard,
    list_audit,
    list_dead_letters,
    retry,
    show,
    summarize,
)
from syncline.operations.explain import explain
from syncline.operations.explanation import Explanation, RowState
from syncline.operations.parked import (
    AwaitedRow,
    Obstacle,
    ParkedEntry,
    ParkedPage,
    ParkedPart,
    ParkedSummary,
    list_parked,
    summarize_parked,
)

__all__ = [
    "AuditEntry",
    "AuditPage",
    "AwaitedRow",
    "DeadLetter",
    "DeadLetterPage",
    "DeadLetterState",
    "Explanation",
    "FailureGroup",
    "FailureSummary",
    "Obstacle",
    "ParkedEntry",
    "ParkedPage",
    "ParkedPart",
    "ParkedSummary",
    "RowState",
    "Selection",
    "discard",
    "explain",
    "list_audit",
    "list_dead_letters",
    "list_parked",
    "retry",
    "show",
    "summarize",
    "summarize_parked",
]
