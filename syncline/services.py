"""The services of a worker process, for plugins; their type is `syncline.provider.ProviderServices`."""

from syncline.control.services import Role, Services

__all__ = ["Role", "Services"]
