"""The settings of the stack: what its worker is told, and what the CLI uses to reach the same stores.

Precedence: what the stack itself decides (stores), then `temporal-dev.yaml`, then the person's environment.
Anything in the environment that selects a store or a Temporal server is dropped, so that an exported
production DSN is never touched by a development stack.
"""

import os
from collections.abc import Container, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from syncline.errors import SettingsInvalid
from syncline.settings import Settings

__all__ = ["StackStores", "stack_settings", "worker_environment"]

_DROPPED = ("control_dsn", "stores", "qdrant_url", "qdrant_api_key", "qdrants", "task_queue")


def _dropped(overrides: Container[str]) -> list[str]:
    """Return the fields that the person's environment must not decide for a development stack."""
    # A Qdrant that the file names on purpose may get its key from the environment, where secrets belong.
    return [name for name in _DROPPED if not (name == "qdrant_api_key" and "qdrant_url" in overrides)]


class StackStores(BaseModel):
    """Where the stores of a running stack are. Local and without credentials, so it may be written down."""

    model_config = ConfigDict(frozen=True)

    write_dsn: str
    graph_dsn: str
    qdrant_path: Path

    @property
    def environment(self) -> dict[str, str]:
        """The stores as environment variables."""
        return {
            "SYNCLINE_WRITE_DSN": self.write_dsn,
            "SYNCLINE_GRAPH_DSN": self.graph_dsn,
            "SYNCLINE_QDRANT_PATH": str(self.qdrant_path),
        }


def stack_settings(stores: StackStores, overrides: Mapping[str, JsonValue]) -> Settings:
    """Return the settings that the worker of the stack will read, or raise SettingsInvalid.

    `overrides` are field names of `Settings`, as `temporal-dev.yaml` declares them.
    """
    defaults = {
        name: Settings.model_fields[name].get_default(call_default_factory=True)
        for name in _dropped(overrides)
    }
    try:
        return Settings.model_validate({**defaults, **overrides, **stores.model_dump()})
    except ValidationError as error:
        problems = "; ".join(
            f"SYNCLINE_{str(item['loc'][0]).upper()}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise SettingsInvalid(problems) from None


def worker_environment(
    stores: StackStores, overrides: Mapping[str, str], *, address: str, namespace: str
) -> dict[str, str]:
    """Return the environment of the worker process. `overrides` are SYNCLINE_* variables."""
    named = {name.removeprefix("SYNCLINE_").lower() for name in overrides}
    dropped = {f"SYNCLINE_{name.upper()}" for name in _dropped(named)}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in dropped and not name.startswith("TEMPORAL_")
    }
    return {
        **inherited,
        **overrides,
        **stores.environment,
        "TEMPORAL_ADDRESS": address,
        "TEMPORAL_NAMESPACE": namespace,
        # A profile in the person's own file may ask for TLS or an API key; the dev server has neither.
        "TEMPORAL_CONFIG_FILE": os.devnull,
        "PYTHONUNBUFFERED": "1",
    }
