"""The workers of a deployment: each tells the control plane about itself, and anybody may ask."""

from syncline.fleet.description import Fleet, Installed, ProviderUse, describe_fleet
from syncline.fleet.records import InstalledProvider, WorkerRecord, WorkerRepository, announced

__all__ = [
    "Fleet",
    "Installed",
    "InstalledProvider",
    "ProviderUse",
    "WorkerRecord",
    "WorkerRepository",
    "announced",
    "describe_fleet",
]
