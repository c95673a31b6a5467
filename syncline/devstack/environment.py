"""The settings of the stack: what its worker is told, and what the CLI uses to reach the same stores.

Precedence: what the stack itself decides (stores), then `temporal-dev.yaml`, then the person's environment.
Anything in the environment that selects a store or a Temporal server is dropped, so that an exported
production DSN is never touched by a development stack.
"""

import os
import shlex
from collections.abc import Container, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsError

from syncline.errors import SettingsInvalid
from syncline.settings import Settings

__all__ = ["StackStores", "clear_temporal_environment", "exports_of", "stack_settings", "worker_environment"]

_DROPPED = ("owner_role", "control_dsn", "stores", "qdrant_url", "qdrant_api_key", "qdrants", "task_queue")


def _dropped(overrides: Container[str]) -> list[str]:
    """Return the fields that the person's environment must not decide for a development stack."""
    # A Qdrant that the file names on purpose may get its key from the environment, where secrets belong.
    return [name for name in _DROPPED if not (name == "qdrant_api_key" and "qdrant_url" in overrides)]


class StackStores(BaseModel):
    """Where the stores of a running stack are. Local and without credentials, so it may be written down."""

    model_config = ConfigDict(frozen=True)

    write_dsn: str
    """As the role that owns the schemas: for whoever migrates, adopts or looks in."""
    graph_dsn: str
    qdrant_path: Path
    worker_write_dsn: str | None = None
    """As the role of the worker; None, as in records of earlier releases: there is one role for all."""
    worker_graph_dsn: str | None = None
    writer_dsn: str | None = None
    """The write-db, as the role that writes graphs."""
    owner_role: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The stores as environment variables of the worker."""
        stores = {
            "SYNCLINE_WRITE_DSN": self.worker_write_dsn or self.write_dsn,
            "SYNCLINE_GRAPH_DSN": self.worker_graph_dsn or self.graph_dsn,
            "SYNCLINE_QDRANT_PATH": str(self.qdrant_path),
        }
        return stores if self.owner_role is None else {**stores, "SYNCLINE_OWNER_ROLE": self.owner_role}

    @property
    def as_owner(self) -> dict[str, JsonValue]:
        """The stores as fields of `Settings`, for whoever migrates and adopts."""
        return {
            "write_dsn": self.write_dsn,
            "graph_dsn": self.graph_dsn,
            "owner_role": None,
            "qdrant_path": str(self.qdrant_path),
        }

    @property
    def as_writer(self) -> dict[str, JsonValue]:
        """The same for whoever writes rows."""
        return {**self.as_owner, "write_dsn": self.writer_dsn or self.write_dsn}


def stack_settings(stores: Mapping[str, JsonValue], overrides: Mapping[str, JsonValue]) -> Settings:
    """Return the settings that the worker of the stack will read, with these stores; raise SettingsInvalid.

    Both are by field names of `Settings`, `overrides` as `temporal-dev.yaml` declares them.
    """
    declared = {**overrides, **stores}
    # Left in the environment, an object would be merged into the declared one, not replaced by it.
    hidden = {f"syncline_{name}" for name in {*_dropped(overrides), *declared}}

    class StackSettings(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del settings_cls, dotenv_settings, file_secret_settings  # `Settings` reads no files either
            if isinstance(env_settings, EnvSettingsSource):
                visible = {name: value for name, value in env_settings.env_vars.items() if name not in hidden}
                env_settings.env_vars = visible
            return init_settings, env_settings

    try:
        return StackSettings.model_validate(declared)
    except ValidationError as error:
        problems = "; ".join(
            f"SYNCLINE_{str(item['loc'][0]).upper()}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise SettingsInvalid(problems) from None
    except SettingsError as error:
        raise SettingsInvalid(f"{error}: it must be a JSON object") from None


def exports_of(stores: StackStores, folder: Path, *, address: str, namespace: str) -> str | None:
    """Return the `export` line with which other shells reach the stack; None where they need none.

    Temporal's own tools need it on another port or namespace; our commands only for a state folder that is
    not `./.syncline`, where they find the stack by themselves.
    """
    found = {}
    elsewhere = folder.resolve() != Path(".syncline").resolve()
    if elsewhere or address.rpartition(":")[2] != "7233":
        found["TEMPORAL_ADDRESS"] = address
    if namespace != "default":
        found["TEMPORAL_NAMESPACE"] = namespace
    if elsewhere:
        found |= {"SYNCLINE_WRITE_DSN": stores.write_dsn, "SYNCLINE_GRAPH_DSN": stores.graph_dsn}
    if not found:
        return None
    return " ".join(["export", *(f"{name}={shlex.quote(value)}" for name, value in found.items())])


def clear_temporal_environment() -> None:
    """Make this process ignore TEMPORAL_* and profiles: it talks to the server of its own stack alone.

    A person's profile may ask for TLS or an API key; the dev server has neither.
    """
    for name in [name for name in os.environ if name.startswith("TEMPORAL_")]:
        del os.environ[name]
    os.environ["TEMPORAL_CONFIG_FILE"] = os.devnull


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
        "TEMPORAL_CONFIG_FILE": os.devnull,
        "PYTHONUNBUFFERED": "1",
        "SYNCLINE_DEV_STACK": "true",
    }
