"""What ships as SyncProviders, registered through the same door as a stranger's."""

from typing import Final

from providers.default import DefaultSyncProvider

__all__ = ["BUILTIN"]

BUILTIN: Final = (DefaultSyncProvider,)
"""What `Registry.load` registers before any plugin."""
