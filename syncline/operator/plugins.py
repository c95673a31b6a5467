"""What a worker of this Python environment would load as providers, and why not; without any server."""

import sys
from importlib import metadata
from typing import Final

from syncline import names
from syncline.errors import ConfigurationError, ProviderDuplicate
from syncline.messages.base import Message
from syncline.registry import Registry, distribution_of, names_of, plugins

__all__ = ["PluginFound", "PluginsChecked", "check_plugins"]

_OWN: Final = "syncline"


class PluginFound(Message):
    """One entry point of the group `syncline.providers`."""

    entry_point: str
    value: str
    """Module and attribute, as its distribution declares them."""
    distribution: str
    """Name and version."""
    kind: str | None = None
    provider: str | None = None
    """The id that compositions name; None if it does not load."""
    version: str | None = None
    api_version: int | None = None
    required: bool = False
    """Whether graphs are held rather than fall back while no worker has it."""
    problem: str | None = None
    """Why a worker would start without it; None if it loads."""

    def names(self) -> set[str]:
        """Return what may name it: provider, entry point, distribution with and without its version."""
        distribution = self.distribution
        return {self.provider or "", self.entry_point, distribution, distribution.rpartition(" ")[0]}


class PluginsChecked(Message):
    """Answer of `syncline provider check`."""

    python: str
    """The interpreter whose installed distributions were looked at."""
    allowed: tuple[str, ...] | None = None
    """SYNCLINE_PLUGINS; None if it is not set, so that all may load."""
    plugins: tuple[PluginFound, ...] = ()
    unmatched: tuple[str, ...] = ()
    """Names in SYNCLINE_PLUGINS that no installed distribution has."""


def check_plugins(allowed: frozenset[str] | None) -> PluginsChecked:
    """Import and register every plugin of this process as a worker would, in the same order.

    Plugins' code runs: their imports, and what makes an instance. `initialize` is not called.
    """
    registry = Registry()
    found = []
    for point in plugins():
        plugin = PluginFound(entry_point=point.name, value=point.value, distribution=distribution_of(point))
        if allowed is not None and not names_of(point) & allowed:
            problem = "SYNCLINE_PLUGINS does not name it, so it is not imported"
            found.append(plugin.model_copy(update={"problem": problem}))
            continue
        try:
            registered = registry.add_plugin(point)
            if registered.provider.id == names.DEFAULT_PROVIDER and registered.kind == "sync":
                own = f"{_OWN} {metadata.version(_OWN)}"
                raise ProviderDuplicate(
                    registered.provider.id, kind="sync", first=own, second=plugin.distribution
                )
        except ConfigurationError as error:
            found.append(plugin.model_copy(update={"problem": str(error)}))
            continue
        found.append(
            plugin.model_copy(
                update={
                    "kind": registered.kind,
                    "provider": registered.provider.id,
                    "version": registered.provider.version,
                    "api_version": registered.provider.api_version,
                    "required": registered.required,
                }
            )
        )
    known = {name for point in plugins() for name in names_of(point)}
    return PluginsChecked(
        python=sys.executable,
        allowed=None if allowed is None else tuple(sorted(allowed)),
        plugins=tuple(found),
        unmatched=tuple(sorted((allowed or frozenset()) - known)),
    )
