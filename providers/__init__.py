"""The built-in SyncProviders, registered through the same registry as plugins."""

from typing import Final

from providers.default import DefaultSyncProvider

__all__ = ["BUILTIN"]

BUILTIN: Final = (DefaultSyncProvider,)
"""Providers that `Registry.load` registers before any plugin."""
