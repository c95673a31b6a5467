"""The activities that look at the fleet: who has what installed, and whether what a worker needs is well."""

from temporalio import activity

from activities.translation import errors_translated
from syncline import names
from syncline.fleet import Fleet, describe_fleet
from syncline.health import Health, HealthRequest
from syncline.health.examination import examine
from syncline.services import Services

__all__ = ["FleetActivities"]


class FleetActivities:
    """The activities over one worker's services. `identity` is what the worker is called."""

    def __init__(self, services: Services | None, *, identity: str = "worker") -> None:
        self._opened = services
        self._identity = identity

    @activity.defn(name=names.DESCRIBE_FLEET_ACTIVITY)
    async def describe_fleet(self) -> Fleet:
        """Return what is installed where, and which graphs use it."""
        with errors_translated(activity=names.DESCRIBE_FLEET_ACTIVITY):
            return await describe_fleet(self._services())

    @activity.defn(name=names.DESCRIBE_HEALTH_ACTIVITY)
    async def describe_health(self, request: HealthRequest) -> Health:
        """Return what is well and what is not, seen from this worker; it fails for neither."""
        return await examine(
            self._services(),
            identity=self._identity,
            namespace=activity.client().namespace,
            asked_at=request.asked_at,
        )

    def _services(self) -> Services:
        if self._opened is None:
            raise RuntimeError("FleetActivities was made without services, so its activities cannot run")
        return self._opened
