"""Settings: one table of name, default and help, read once from `SYNCLINE_*` only.

The connection to Temporal is configured by Temporal's own `TEMPORAL_*` variables and profiles.
One module because it is one table, and the page generated from it.
"""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from syncline import names
from syncline.errors import SettingsInvalid
from syncline.logs import sendable
from syncline.stores.dsn import Dsn, parse_dsn

_DAY: Final = 86_400
_TELLABLE: Final = re.compile(r"^[A-Za-z0-9_-]{1,40}$")
_HEADER: Final = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_|~-]{1,100}$")
_OWN_HEADERS: Final = frozenset({"host", "content-type", "content-length", "transfer-encoding", "connection"})
SecretT = TypeVar("SecretT", SecretStr, SecretStr | None)
UrlT = TypeVar("UrlT", str, str | None)


def _variable(field: str) -> str:
    return f"SYNCLINE_{field.upper()}"


def _dsn(value: SecretT) -> SecretT:
    """Reject an invalid connection string, with a message that does not quote it."""
    if value is not None:
        parse_dsn(value.get_secret_value())
    return value


def _key(value: SecretT) -> SecretT:
    """Reject a credential that cannot be sent in an HTTP header."""
    if value is not None and not sendable(value):
        raise ValueError(
            "it cannot be sent in an HTTP header (empty, surrounding spaces, line breaks or non-ASCII "
            "characters); set it again, or unset it"
        )
    return value


def _url(value: UrlT) -> UrlT:
    """Reject a value that is not the URL of an HTTP service, or that contains credentials."""
    if value is None:
        return value
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f]", value):
        raise ValueError("it must be a URL that begins with http:// or https://, with a host")
    if parts.username is not None:
        raise ValueError("it must not contain a user or password: URLs are logged; the API key has a setting")
    if "#" in value:
        raise ValueError("it must not contain a fragment (#…): it is never sent")
    return value


def _headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """Reject headers that cannot be sent, or that the HTTP client sets itself."""
    for name, value in headers.items():
        told = f"'{name}'" if _TELLABLE.match(name) else "one of its keys"
        if not _HEADER.match(name):
            raise ValueError(f"{told} is not the name of a header")
        if name.lower() in _OWN_HEADERS:
            raise ValueError(f"{told} is a header that is set by itself")
        if not sendable(value):
            raise ValueError(f"the value of {told} cannot be sent in an HTTP header; set it again")
    return headers


def _body(fields: dict[str, JsonValue], info: ValidationInfo) -> dict[str, JsonValue]:
    """Reject fields that have a setting or that each request fills."""
    service = _variable((info.field_name or "").removesuffix("_body"))
    taken = {
        "input": "it is the texts",
        "model": f"it has the setting {service}_MODEL",
        "dimensions": f"it has the setting {service}_DIMENSIONS",
    }
    for name in fields.keys() & taken.keys():
        raise ValueError(f"'{name}' cannot be among them: {taken[name]}")
    return fields


_HttpUrl = Annotated[str, AfterValidator(_url)]
_Kind = Literal["development", "openai"]


class QdrantServer(BaseModel):
    """Address and API key of one Qdrant server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: _HttpUrl
    api_key: Annotated[SecretStr | None, AfterValidator(_key)] = None


class _TaskQueue(BaseSettings):
    """The one setting that a Temporal client needs."""

    model_config = SettingsConfigDict(env_prefix="SYNCLINE_", frozen=True, extra="ignore")

    task_queue: str = Field(
        default=names.TASK_QUEUE,
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="Temporal task queue that workers poll.",
    )


class _LogFormat(BaseSettings):
    """The setting needed to report invalid settings in the configured log format."""

    model_config = SettingsConfigDict(env_prefix="SYNCLINE_", frozen=True, extra="ignore")

    log_format: str = "console"


class _Plugins(BaseSettings):
    """The setting that says which plugins may load, whatever else is set."""

    model_config = SettingsConfigDict(env_prefix="SYNCLINE_", frozen=True, extra="ignore")

    plugins: str | None = None


class _PayloadCodec(BaseSettings):
    """The setting needed to encode payloads."""

    model_config = SettingsConfigDict(env_prefix="SYNCLINE_", frozen=True, extra="ignore")

    payload_codec: str | None = None


class _Stores(_TaskQueue):
    """The settings of stores: databases and vector stores."""

    write_dsn: Annotated[SecretStr, AfterValidator(_dsn)] = Field(
        description="Default write-db: a connection string, see docs/connections.md."
    )
    graph_dsn: Annotated[SecretStr, AfterValidator(_dsn)] = Field(
        description="Default graph-db: a connection string."
    )
    control_dsn: Annotated[SecretStr | None, AfterValidator(_dsn)] = Field(
        default=None, description="Control-plane database; the graph-db when not set."
    )
    stores: dict[str, Annotated[SecretStr, AfterValidator(_dsn)]] = Field(
        default_factory=dict,
        description="Further Postgres stores that graphs may use: a JSON object of key to connection string.",
    )
    password_commands: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        validate_default=True,
        description="Commands that print a store's password, such as a token of a cloud's identity service: "
        "a JSON object of `write`, `graph`, `control` or a key of `SYNCLINE_STORES` to a list of arguments.",
    )
    owner_role: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        description="Role that owns the schemas of graphs. Migrations run as this role, so that a worker can "
        "add graphs and promote shadows (`syncline grants --worker-creates`).",
    )
    pool_size: int = Field(
        default=10,
        ge=2,
        le=1000,
        description="Maximum connections to each Postgres store, per worker process and per plugin provider "
        "in it.",
    )

    qdrant_url: Annotated[str | None, AfterValidator(_url)] = Field(
        default=None, description="URL of the default Qdrant server; the embedded store when not set."
    )
    qdrant_api_key: Annotated[SecretStr | None, AfterValidator(_key)] = Field(
        default=None, description="API key of that Qdrant server."
    )
    qdrant_path: Path = Field(
        default=Path(".syncline/qdrant"), description="Folder of the embedded vector store."
    )
    qdrants: dict[str, QdrantServer] = Field(
        default_factory=dict,
        description='Further Qdrant servers: a JSON object of key to {"url": …, "api_key": …}.',
    )
    qdrant_timeout_seconds: float = Field(
        default=30,
        gt=0,
        le=_DAY,
        description="Timeout of one Qdrant request; it ends after 10 s if the server answers no probe.",
    )


class EmbeddingSettings(BaseModel):
    """The settings of one embedding service."""

    embedding: _Kind = Field(
        default="development",
        description="`openai`: an OpenAI-compatible HTTP service; `development`: hashes of words, offline.",
    )
    embedding_url: _HttpUrl = Field(
        default="https://api.openai.com/v1",
        description="Base URL of the OpenAI-compatible service: docs/embeddings.md.",
    )
    embedding_api_key: Annotated[SecretStr | None, AfterValidator(_key)] = Field(
        default=None, description="API key of that service, sent as a Bearer token, or as `api-key` to Azure."
    )
    embedding_api_key_header: str | None = Field(
        default=None,
        pattern=_HEADER.pattern,
        description="Header for that key, in place of the one that follows from the URL.",
    )
    embedding_headers: Annotated[dict[str, SecretStr], AfterValidator(_headers)] = Field(
        default_factory=dict, description="Further headers of its requests: a JSON object of name to value."
    )
    embedding_body: Annotated[dict[str, JsonValue], AfterValidator(_body)] = Field(
        default_factory=dict,
        description='Further fields of its requests: a JSON object, such as {"input_type": "passage"}.',
    )
    embedding_model: str = Field(
        default="text-embedding-3-small", min_length=1, max_length=500, description="Embedding model."
    )
    embedding_dimensions: int = Field(default=384, ge=1, le=65_536, description="Dimensions of a vector.")
    embedding_send_dimensions: bool = Field(
        default=True,
        description="Send `dimensions` in each request; left out by itself where the service refuses it.",
    )
    embedding_base64: bool = Field(
        default=True,
        description="Ask for vectors in base64, a quarter of the CPU; left out where the service refuses it.",
    )
    embedding_requests_per_minute: float | None = Field(
        default=None, gt=0, description="Limit of that service, per worker process; no limit when not set."
    )
    embedding_tokens_per_minute: float | None = Field(
        default=None, gt=0, description="The same of tokens, as the service counts them."
    )
    embedding_batch: int = Field(
        default=256, ge=1, le=2048, description="Maximum texts of one embedding request; adapts below it."
    )
    embedding_lanes: int = Field(
        default=16,
        ge=1,
        le=1000,
        description="Maximum embedding requests at once of one worker process; adapts below it.",
    )
    embedding_timeout_seconds: float = Field(
        default=60,
        gt=0,
        le=_DAY,
        description="Timeout of one embedding request; it ends after 15 s if no connection is accepted.",
    )
    embedding_tokens_per_day: int | None = Field(
        default=None,
        ge=1,
        le=10**15,
        description="Tokens that all graphs and workers together may have embedded a day (UTC) by one "
        "service; a graph's own budget is in its record. No limit when not set.",
    )


FIRST_EMBEDDING: Final = "SYNCLINE_EMBEDDING"
SECOND_EMBEDDING: Final = "SYNCLINE_SECOND_EMBEDDING"
"""What the names of the settings of an embedding service begin with."""
_SECOND: Final = "second_"


def _second_fields() -> dict[str, tuple[object, object]]:
    """Return annotation and default of a second service's fields: those of the first, with its kind last.

    Its kind has no default: unless it is set, there is no second service.
    """
    fields: dict[str, tuple[object, object]] = {}
    for name, field in EmbeddingSettings.model_fields.items():
        told = Field(description=f"As `{_variable(name)}`, of the second service.")
        default = field.get_default(call_default_factory=True, validated_data={})
        fields[f"{_SECOND}{name}"] = Annotated[field.annotation, *field.metadata, told], default
    del fields[f"{_SECOND}embedding"]
    told = Field(
        validate_default=True,
        description="Kind of a second service, while the embedding of a graph is changed: "
        "docs/embeddings.md. None when not set.",
    )
    return {**fields, f"{_SECOND}embedding": (Annotated[_Kind | None, told], None)}


if TYPE_CHECKING:

    class _SecondEmbedding(BaseModel):
        """Read by `Settings.second` alone."""
else:
    _SecondEmbedding = create_model("_SecondEmbedding", **_second_fields())


class Settings(_SecondEmbedding, EmbeddingSettings, _Stores):
    """All settings. Field `x` is read from environment variable `SYNCLINE_X`."""

    dev_stack: bool = Field(
        default=False,
        description="Whether this is a development stack; `syncline dev` sets it. Elsewhere the embedded "
        "vector store and the development embedding are warned of.",
    )
    max_concurrent_cycles: int = Field(
        default=8,
        ge=1,
        le=10_000,
        description="Concurrent cycles and resolutions of one worker process, and concurrent cycles of each "
        "plugin. Operations and changes of Schedules have separate slots.",
    )
    max_cached_workflows: int = Field(
        default=200, ge=0, le=1_000_000, description="Workflow runs cached in memory."
    )
    workflow_sandbox: bool = Field(
        default=False,
        description="Run workflow code in the SDK's sandbox, which imports it again in every run. For tests, "
        "and when changing workflow code: docs/decisions/0012-workflow-sandbox.md.",
    )
    reconcile_seconds: int = Field(
        default=30,
        ge=1,
        le=86_400,
        description="Seconds between two reconciliations of Schedules with graphs.",
    )
    notify: bool = Field(
        default=True, description="Listen for NOTIFY on the write-dbs, and start a graph's run on a change."
    )
    notify_runs_per_second: float = Field(
        default=20, gt=0, le=1000, description="Maximum runs per second that one worker starts on changes."
    )
    linger_seconds: float = Field(
        default=5,
        ge=0,
        le=60,
        description="Seconds that a run stays open for further changes after the last; 0: it ends once done.",
    )
    graceful_shutdown_seconds: float = Field(
        default=30, ge=0, le=_DAY, description="Seconds after SIGTERM that running cycles have to finish."
    )
    deployment_name: str | None = Field(
        default=None,
        pattern=r"^[^.:]{1,200}$",
        description="Name of the Worker Deployment, for Worker Versioning; set with `SYNCLINE_BUILD_ID`.",
    )
    build_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        validate_default=True,
        description="Build id of this worker in that deployment, such as a commit: docs/deployment.md.",
    )
    blocked_seconds: float = Field(
        default=10,
        ge=0.1,
        le=3600,
        description="Seconds that a plugin's provider may block its event loop before its cycles fail; below "
        "the heartbeat timeout of 20.",
    )

    batch_rows: int = Field(
        default=250_000,
        ge=1,
        le=1_000_000,
        description="Maximum rows of one committed batch; fewer if rows are large (about 256 MiB a batch).",
    )
    load_lanes: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Lanes that read the first load of a large table side by side, over two connections "
        "each, in this worker and others; 1: the cycle alone. More pay where the graph-db has idle cores.",
    )
    cycle_seconds: float = Field(
        default=600, gt=0, le=3600, description="Time budget of a cycle; the next one continues from there."
    )
    dead_letter_seconds: float = Field(
        default=60, gt=0, le=86_400, description="Seconds from a row's first rejection to its first retry."
    )
    dead_letter_attempts: int = Field(
        default=5, ge=1, le=100, description="Rejections after which a row is dead: retried on request only."
    )
    removal_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Part of a table's rows that may leave unasked because the write-db, as after a restore, "
        "turned out not to have them; up to 100 rows always may.",
    )
    vector_retry_seconds: float = Field(
        default=5,
        ge=0,
        le=3600,
        description="First delay after Qdrant or the embedding service failed; doubles, up to 5 minutes.",
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Minimum level that is logged."
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="`json` writes one object per line."
    )
    payload_codec: str | None = Field(
        default=None,
        description="`module:factory` of the payload codec of workers and commands, such as encryption: "
        "docs/security.md.",
    )
    plugins: str | None = Field(
        default=None,
        description="Plugins that may load: comma-separated names of entry points or distributions; all when "
        "not set, none when empty.",
    )
    operations: Literal["all", "read", "none"] = Field(
        default="all",
        description="Operations that this worker serves: all, only those that change nothing, or none.",
    )

    metrics_address: str | None = Field(
        default=None,
        pattern=r"^(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5}$",
        description="Address to serve Prometheus metrics on, e.g. 0.0.0.0:9090; off when not set.",
    )
    probes: str | None = Field(
        default=None,
        pattern=r"^(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5}$",
        description="Address to serve `/healthz` and `/readyz` on, e.g. 127.0.0.1:9101; off when not set: "
        "docs/deployment.md.",
    )
    traces_url: Annotated[str | None, AfterValidator(_url)] = Field(
        default=None,
        description="URL to send traces to by OTLP over HTTP, e.g. http://localhost:4318/v1/traces; off when "
        "not set. Needs the extra `syncline[tracing]`.",
    )

    @property
    def second(self) -> EmbeddingSettings | None:
        """The settings of the second embedding service; None without one."""
        given = {name: getattr(self, f"{_SECOND}{name}") for name in EmbeddingSettings.model_fields}
        return None if given["embedding"] is None else EmbeddingSettings.model_construct(**given)

    @property
    def allowed_plugins(self) -> frozenset[str] | None:
        """Names of the plugins that may load; None means all."""
        return _named(self.plugins)

    @property
    def deployment_version(self) -> str | None:
        """`deployment:build`, as Temporal writes it; None without Worker Versioning."""
        return None if self.build_id is None else f"{self.deployment_name}:{self.build_id}"

    @field_validator("second_embedding", check_fields=False)
    @classmethod
    def _has_a_kind(cls, kind: str | None, info: ValidationInfo) -> str | None:
        for name, field in EmbeddingSettings.model_fields.items():
            default = field.get_default(call_default_factory=True, validated_data={})
            if kind is None and info.data.get(f"{_SECOND}{name}", default) != default:
                raise ValueError(f"set it too, or unset {_variable(f'{_SECOND}{name}')}")
        return kind

    @field_validator("password_commands")
    @classmethod
    def _is_of_a_store(
        cls, commands: dict[str, tuple[str, ...]], info: ValidationInfo
    ) -> dict[str, tuple[str, ...]]:
        stores = {
            **{key: info.data.get(f"{key}_dsn") for key in ("write", "graph", "control")},
            **info.data.get("stores", {}),
        }
        for key in commands:
            named = f"'{key}'" if _TELLABLE.match(key) else "one of its keys"
            if stores.get(key) is None:
                raise ValueError(f"{named} is not a store that another setting defines")
            if parse_dsn(stores[key].get_secret_value()).password is not None:
                raise ValueError(
                    f"the connection string of {named} already has a password; remove one of them"
                )
        return commands

    def dsn(self, where: str, key: str | None = None) -> Dsn:
        """Return the connection of a store, or raise SettingsInvalid if it is not set.

        `where` is `write`, `graph` or `control` (the defaults), or `stores` with a `key` of SYNCLINE_STORES.
        """
        found = self.stores.get(key or "") if where == "stores" else getattr(self, f"{where}_dsn")
        if not isinstance(found, SecretStr):
            raise SettingsInvalid(f"{setting_of(where, key)} is not set. See docs/settings.md.")
        return parse_dsn(found.get_secret_value())

    @field_validator("build_id")
    @classmethod
    def _goes_with_a_deployment(cls, build_id: str | None, info: ValidationInfo) -> str | None:
        name = info.data.get("deployment_name", build_id)  # absent if it was invalid itself
        if (name is None) != (build_id is None):
            raise ValueError("set SYNCLINE_DEPLOYMENT_NAME and SYNCLINE_BUILD_ID, or neither")
        return build_id


def load_settings() -> Settings:
    """Return the settings of this process, or raise SettingsInvalid naming each variable and its problem.

    The message never contains values: they may be secrets.
    """
    return _loaded(Settings)


def load_task_queue() -> str:
    """Return the task queue without requiring store settings, or raise SettingsInvalid."""
    return _loaded(_TaskQueue).task_queue


def setting_of(where: str, key: str | None = None) -> str:
    """Return the name of the setting that holds a store's connection string, for error messages."""
    return f"key '{key}' of SYNCLINE_STORES" if where == "stores" else f"SYNCLINE_{where.upper()}_DSN"


LoadedT = TypeVar("LoadedT", bound=_TaskQueue)


def _loaded(kind: type[LoadedT]) -> LoadedT:
    try:
        return kind()
    except ValidationError as error:
        problems = "; ".join(
            f"{_place(item['loc'])}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_input=False, include_url=False)
        )
    except SettingsError as error:
        # It names the field in quotes. Its cause contains the whole value, so nothing is chained.
        field = re.search(r'field "(\w+)"', str(error))
        problems = f"{_variable(field[1]) if field else 'A variable'}: it must be a JSON object"
    raise SettingsInvalid(f"{problems}. See docs/settings.md.")


def load_log_format() -> str:
    """Return the log format unvalidated, even if other settings are invalid."""
    return _LogFormat().log_format


def load_allowed_plugins() -> frozenset[str] | None:
    """Return the names of the plugins that may load, even if other settings are missing; None means all."""
    return _named(_Plugins().plugins)


def _named(plugins: str | None) -> frozenset[str] | None:
    if plugins is None:
        return None
    return frozenset(name.strip() for name in plugins.split(",") if name.strip())


def load_payload_codec() -> str | None:
    """Return `module:factory` of the payload codec, for any process that connects to Temporal."""
    return _PayloadCodec().payload_codec


def reference() -> str:
    """Return the page `docs/settings.md`, generated from the model."""
    rows = [
        f"| `{_variable(name)}` | {_type_of(field)} | {_default_of(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            "Read from environment variables once, at the start of a process. The connection to Temporal is",
            "configured by Temporal's own `TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, `TEMPORAL_API_KEY`,",
            "`TEMPORAL_TLS_*` and profiles. `make docs` generates this page.",
            "",
            "| Variable | Type | Default | Meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _place(location: tuple[int | str, ...]) -> str:
    field, *keys = (str(part) for part in location)
    if not keys:
        return _variable(field)
    # A value typed in the place of a key may still be a secret.
    tellable = all(_TELLABLE.match(key) for key in keys)
    return (
        f"{_variable(field)} (key {'.'.join(keys)})" if tellable else f"{_variable(field)} (one of its keys)"
    )


def _type_of(field: FieldInfo) -> str:
    """Return the type in words."""
    inner = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    if get_origin(field.annotation) is dict:
        return "JSON object"
    if get_origin(field.annotation) is Literal:
        inner = []
    kind = inner[0] if inner else field.annotation
    if get_origin(kind) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(kind))
    words: dict[object, str] = {
        SecretStr: "secret",
        Path: "path",
        int: "integer",
        float: "number",
        str: "text",
        bool: "`true` or `false`",
    }
    bounds = [
        f"{word} {getattr(rule, name):,}"
        for rule in field.metadata
        for name, word in (("ge", "≥"), ("gt", ">"), ("le", "≤"))
        if hasattr(rule, name)
    ]
    return " ".join([words.get(kind, str(kind)), ", ".join(bounds)]).strip()


def _default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True, validated_data={})
    return "" if default is None else f"`{default}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
