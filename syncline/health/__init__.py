"""Whether everything that a worker stands on is well: each check alone, bounded, and with its fix."""

from syncline.health.check import Check, CheckStatus, bounded
from syncline.health.examination import Health, HealthRequest, examine

__all__ = ["Check", "CheckStatus", "Health", "HealthRequest", "bounded", "examine"]
