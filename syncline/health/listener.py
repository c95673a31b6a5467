"""The check of a write-db's listener: whether a change there would start a run at once."""

from typing import Final

from syncline.freshness.hearing import line_name, listened_to
from syncline.freshness.line import obstacle
from syncline.health.check import Check, CheckStatus
from syncline.services import Services

__all__ = ["check_listener"]

_FIX: Final = (
    "A worker without SYNCLINE_NOTIFY=false takes that up within seconds; if none does, its log says why: "
    "`not listening as it should be`. Until then the Schedules alone start runs."
)


async def check_listener(name: str, services: Services, key: str | None, *, namespace: str) -> Check:
    """Return the check of one write store, or raise StoreError if it does not answer."""
    store = services.store("write", key)
    async with store.driver() as connection:
        found = await obstacle(connection.fetchval)
    if found is not None:
        return Check(name=name, status=CheckStatus.WARN, found=found.problem, fix=found.fix)
    if await listened_to(store, line_name(namespace, services, store)):
        return Check(name=name, found="a worker listens: changes start runs at once")
    if not services.settings.notify:
        return Check(name=name, found="no worker listens; this one has SYNCLINE_NOTIFY=false")
    return Check(name=name, status=CheckStatus.WARN, found="no worker listens", fix=_FIX)
