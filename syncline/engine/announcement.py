"""The event that tells downstream caches what a run changed."""

from collections.abc import Iterator, Mapping

from syncline.messages import GraphRef, SyncEvent, TableProgress

__all__ = ["payloads"]

_PAYLOAD_LIMIT = 8000
"""Bytes from which on Postgres refuses the payload of a NOTIFY."""


def payloads(
    graph: GraphRef, run_id: str, changed: Mapping[str, TableProgress], failures: int
) -> Iterator[str]:
    """Yield the event, in parts of fewer tables each where Postgres would refuse it as too long."""
    if not changed:
        return
    event = SyncEvent(
        graph=graph.slug,
        graph_id=graph.id,
        run_id=run_id,
        rows={name: table.rows + table.deletes for name, table in changed.items()},
        links={name: table.links for name, table in changed.items() if table.links},
        failures=failures,
    )
    payload = event.model_dump_json()
    if len(payload.encode()) < _PAYLOAD_LIMIT or len(changed) == 1:
        yield payload
        return
    tables, half = list(changed.items()), len(changed) // 2
    yield from payloads(graph, run_id, dict(tables[:half]), failures)
    yield from payloads(graph, run_id, dict(tables[half:]), failures)
