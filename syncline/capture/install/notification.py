"""Notification: the objects by which a captured schema's writers notify workers."""

from collections.abc import Iterator, Sequence

from syncline import names
from syncline.capture.install.catalog import Catalog, FunctionState, TableState
from syncline.capture.install.steps import (
    LISTENER,
    NOTIFY_FUNCTION,
    NOTIFY_TRIGGER,
    QUIET,
    STATE,
    TOKEN,
    Step,
    qualified,
)
from syncline.capture.install.triggers import (
    AFTER_STATEMENT,
    Trigger,
    function_definition,
    owned_function,
    put,
    sql,
)
from syncline.sql import literal

__all__ = ["notification_steps", "notify_body", "notify_statements", "notify_trigger", "shared_steps"]


def shared_steps(catalog: Catalog) -> Iterator[Step]:
    """Yield the steps for what all graphs of the database share for notifications."""
    if catalog.listener is None:
        yield Step(
            sentence=f"Create table {'.'.join(LISTENER)}, in which workers register that they listen.",
            statements=(sql("listener"),),
            shared=True,
        )
    if catalog.token != token_body():
        yield Step(
            sentence=f"Create function {'.'.join(TOKEN)}(), by which writers name their transaction.",
            statements=(sql("token", body=token_body().body),),
            shared=True,
        )


def notification_steps(catalog: Catalog) -> Iterator[Step]:
    """Yield the steps that the schema lacks for notifications; table triggers: `notify_statements`."""
    state = qualified(catalog.schema, STATE)
    body = notify_body(catalog)
    there = STATE in catalog.tables and (catalog.schema, QUIET) in catalog.names
    same = catalog.functions.get((catalog.schema, NOTIFY_FUNCTION)) == body
    statements = [
        *([] if STATE in catalog.tables else [sql("notify_state", state=state)]),
        *([] if there else [sql("quiet", quiet=qualified(catalog.schema, QUIET), state=state)]),
        *([] if same else [function_definition((catalog.schema, NOTIFY_FUNCTION), body)]),
    ]
    if statements:
        yield Step(
            sentence=f"Create table and function {catalog.schema}.{STATE}, which notify workers of changes.",
            statements=tuple(statements),
        )


def notify_trigger(schema: str) -> Trigger:
    """Return the notification trigger for each source table of the schema and each of its partitions."""
    return Trigger(
        name=NOTIFY_TRIGGER,
        kind=AFTER_STATEMENT,
        timing="AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE",
        rows="FOR EACH STATEMENT",
        function=(schema, NOTIFY_FUNCTION),
    )


def notify_statements(table: TableState, schema: str) -> Sequence[str]:
    """Return the DDL of the notification triggers that a source table and its partitions lack."""
    trigger = notify_trigger(schema)
    # A statement fires the triggers of the table that it names, even if that is a partition.
    lacking = [each for each in (table, *table.leaves) if not trigger.is_on(each)]
    return [statement for each in lacking for statement in put(trigger, each)]


def notify_body(catalog: Catalog) -> FunctionState:
    """Return the notification trigger's function in its current form."""
    return owned_function(
        sql(
            "notify_body",
            state=qualified(catalog.schema, STATE),
            quiet=literal(qualified(catalog.schema, QUIET)),
            channel=names.WRITE_CHANNEL,
            schema=literal(catalog.schema),
        ).strip(),
        settings=(),
    )


def token_body() -> FunctionState:
    """Return the function by which writers name their transaction."""
    return owned_function(sql("token_body").strip())
