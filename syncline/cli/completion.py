"""Completion of graphs' names on the command line: from the Schedules, at once or not at all."""

from typing import Final

__all__ = ["complete_graph"]

_SECONDS: Final = 1.0
"""Whoever presses Tab waits no longer."""


def complete_graph(incomplete: str) -> list[str]:
    """Return the slugs that begin like this; none if Temporal does not answer within a second."""
    import asyncio

    from syncline.cli.target import connect_temporal
    from syncline.errors import SynclineError
    from syncline.temporal.schedules.list import list_schedules

    async def slugs() -> list[str]:
        found = await list_schedules(await connect_temporal(prepare=False))
        return [schedule.slug for schedule in found if schedule.slug.startswith(incomplete)]

    try:
        return asyncio.run(asyncio.wait_for(slugs(), _SECONDS))
    except (SynclineError, TimeoutError):
        return []
