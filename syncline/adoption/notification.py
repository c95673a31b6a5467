"""What notifies the worker of changes: one trigger on each table, and what it looks up before it does.

NOTIFY takes a lock at commit that all notifying transactions of the cluster share, so it is sent only while
somebody listens, and not while it would say nothing new. A transaction that can be prepared cannot notify.
"""

from collections.abc import Iterator, Sequence

from syncline import names
from syncline.adoption.capture import (
    AFTER_STATEMENT,
    Trigger,
    function_definition,
    owned_function,
    put,
    sql,
)
from syncline.adoption.catalog import Catalog, FunctionState, TableState
from syncline.adoption.naming import LISTENER, NOTIFY_FUNCTION, NOTIFY_TRIGGER, STATE, qualified
from syncline.adoption.steps import Step
from syncline.sqltext import literal

__all__ = ["notification_steps", "notify_statements", "notify_trigger", "shared_steps"]


def shared_steps(catalog: Catalog) -> Iterator[Step]:
    """Yield what all graphs of the database share for it."""
    if not catalog.listener:
        yield Step(
            sentence=f"Create table {'.'.join(LISTENER)}, in which the worker says that it listens.",
            statements=(sql("listener"),),
            shared=True,
        )


def notification_steps(catalog: Catalog) -> Iterator[Step]:
    """Yield what the schema lacks; its tables' triggers are `notify_statements`."""
    state = qualified(catalog.schema, STATE)
    body = _body(catalog)
    same = catalog.functions.get((catalog.schema, NOTIFY_FUNCTION)) == body
    statements = [
        *([] if STATE in catalog.tables else [sql("notify_state", state=state)]),
        *([] if same else [function_definition((catalog.schema, NOTIFY_FUNCTION), body)]),
    ]
    if statements:
        yield Step(
            sentence=f"Create table and function {catalog.schema}.{STATE}, which tell the worker of changes.",
            statements=tuple(statements),
        )


def notify_trigger(schema: str) -> Trigger:
    """Return the trigger that each source table of the schema needs, and each of its partitions."""
    return Trigger(
        name=NOTIFY_TRIGGER,
        kind=AFTER_STATEMENT,
        timing="AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE",
        rows="FOR EACH STATEMENT",
        function=(schema, NOTIFY_FUNCTION),
    )


def notify_statements(table: TableState, schema: str) -> Sequence[str]:
    """Return the DDL of the triggers that a source table of the schema lacks, those of its partitions too."""
    trigger = notify_trigger(schema)
    # A statement fires the triggers of the table that it names, be that a partition.
    lacking = [each for each in (table, *table.leaves) if not trigger.is_on(each)]
    return [statement for each in lacking for statement in put(trigger, each)]


def _body(catalog: Catalog) -> FunctionState:
    return owned_function(
        sql(
            "notify_body",
            state=qualified(catalog.schema, STATE),
            channel=names.WRITE_CHANNEL,
            schema=literal(catalog.schema),
        ).strip()
    )
