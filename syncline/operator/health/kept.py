"""Check of rebuilds: generations that are there for longer than the switch asked for."""

from collections.abc import Sequence

from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.errors import StoreError
from syncline.operator.health.check import Check, CheckStatus

__all__ = ["check_kept"]


async def check_kept(services: Services, graphs: Sequence[Graph]) -> Sequence[Check]:
    """Return a check for each graph whose generation before is kept too long; none if there is none."""
    try:
        found = await services.rebuilds.kept_too_long(graphs)
    except StoreError:
        return [Check(name="rebuilds", status=CheckStatus.SKIP, found="see the check of control plane")]
    return [
        Check(
            name="rebuilds",
            status=CheckStatus.WARN,
            found=f"graph {slug}: what its rebuild has replaced was to go by {until:%Y-%m-%d %H:%M} UTC",
            fix=f"If nobody wants to go back: `syncline rebuild drop {slug}`; else "
            f"`syncline rebuild switch {slug} --keep-for 7d` keeps it.",
        )
        for slug, until in sorted(found.items())
    ]
