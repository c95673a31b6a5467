"""Temporal client: connects by Temporal's own configuration, with our data converter and our errors."""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import cache
from typing import Final

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client, Plugin
from temporalio.common import SearchAttributeKey
from temporalio.envconfig import ClientConfig
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.service import RPCError, RPCStatusCode, ServiceClient

from syncline import names
from syncline.errors import ConfigurationError, SettingsInvalid, TemporalUnavailable
from syncline.temporal.data_converter import load_data_converter

__all__ = [
    "FAILURES",
    "FALLBACK",
    "FINGERPRINT",
    "GRAPH",
    "PROVIDER",
    "PROVIDER_API",
    "PROVIDER_VERSION",
    "REPORTED_PROBLEMS",
    "ROWS",
    "SCHEDULED_BY",
    "SCHEDULED_FOR",
    "STATUS",
    "connect",
    "connect_again",
    "missing_search_attributes",
    "register_search_attributes",
    "require_search_attributes",
    "temporal_errors_mapped",
]

_DEFAULT_ADDRESS: Final = "localhost:7233"

_QUOTED: Final = re.compile(r'(?:message|error): "(?P<cause>[^"]+)"')

_TYPES: Final[Mapping[str, IndexedValueType.ValueType]] = {
    "Bool": IndexedValueType.INDEXED_VALUE_TYPE_BOOL,
    "Int": IndexedValueType.INDEXED_VALUE_TYPE_INT,
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
}

_PLACES: Final[Mapping[str, int]] = {"Bool": 3, "Int": 3, "Keyword": 10}
"""Custom search attributes of a type that a namespace can have where visibility is in a SQL database."""
_TOO_MANY: Final = "cannot have more than"


async def connect(
    *,
    address: str | None = None,
    namespace: str | None = None,
    identity: str | None = None,
    runtime: Runtime | None = None,
    plugins: Sequence[Plugin] = (),
) -> Client:
    """Return a client connected by the `TEMPORAL_*` variables and profiles.

    `address` and `namespace` override them. Without a `runtime` the SDK's core does not write each retry to
    stdout, in a form of its own: whoever asks gets the error. Raise SettingsInvalid if the configuration
    cannot be read, TemporalUnavailable if the server cannot be reached.
    """
    try:
        config = ClientConfig.load_client_connect_config()
    except (RuntimeError, ValueError, OSError) as error:
        raise SettingsInvalid(f"The Temporal client configuration cannot be read: {error}") from error
    config["target_host"] = address or config.get("target_host") or _DEFAULT_ADDRESS
    config["namespace"] = namespace or config.get("namespace") or "default"
    converter = load_data_converter()
    try:
        return await Client.connect(
            **config,
            data_converter=converter,
            identity=identity,
            runtime=runtime or _silent(),
            plugins=plugins,
        )
    except (RuntimeError, RPCError, OSError) as error:  # the SDK raises RuntimeError if it cannot connect
        raise TemporalUnavailable(config["target_host"], config["namespace"], _cause(error)) from error


@cache
def _silent() -> Runtime:
    return Runtime(telemetry=TelemetryConfig(logging=None))


async def connect_again(client: Client) -> Client:
    """Return a new client with the same configuration, for another event loop; raise TemporalUnavailable."""
    connection = client.service_client.config
    try:
        service = await ServiceClient.connect(connection)
    except (RuntimeError, RPCError, OSError) as error:
        raise TemporalUnavailable(connection.target_host, client.namespace, _cause(error)) from error
    return Client(**(client.config() | {"service_client": service}))


async def missing_search_attributes(client: Client) -> set[str]:
    """Return Syncline's search attributes that the namespace lacks.

    A server that does not let clients list them (Temporal Cloud) is assumed to have them. Raise
    ConfigurationError if one is registered with another type, or if the namespace has no room for those that
    it lacks; TemporalUnavailable if the server does not answer or the namespace does not exist.
    """
    try:
        found = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
    except RPCError as error:
        if error.status in (RPCStatusCode.UNIMPLEMENTED, RPCStatusCode.PERMISSION_DENIED):
            return set()
        raise _unavailable(client, error) from error
    for name, declared in names.SEARCH_ATTRIBUTES.items():
        actual = found.custom_attributes.get(name)
        if actual is not None and actual != _TYPES[declared]:
            raise ConfigurationError(
                f"Search attribute {name} of namespace '{client.namespace}' is registered with another type; "
                f"it must be {declared}.",
                fix=f"Run `temporal operator search-attribute remove --name {name}`, then create it again.",
            )
    missing = names.SEARCH_ATTRIBUTES.keys() - found.custom_attributes.keys()
    # Elasticsearch, which has a schema of its own, takes any number.
    if missing and not found.storage_schema:
        lacking = list(_lacking(missing, found.custom_attributes))
        if lacking:
            raise _full(client, "; ".join(lacking))
    return missing


def _lacking(missing: Set[str], registered: Mapping[str, IndexedValueType.ValueType]) -> Iterator[str]:
    """Yield for each type of which there are too few: how many are needed, and what takes the places."""
    for declared, places in _PLACES.items():
        taken = sorted(name for name, kind in registered.items() if kind == _TYPES[declared])
        needed = sorted(name for name in missing if names.SEARCH_ATTRIBUTES[name] == declared)
        free = max(places - len(taken), 0)
        if len(needed) > free:
            yield (
                f"it needs {len(needed)} more of type {declared} ({', '.join(needed)}) and {free} of "
                f"{places} are free (taken by {', '.join(taken)})"
            )


def _full(client: Client, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"Namespace '{client.namespace}' has no room for Syncline's search attributes: {why}. Nothing was "
        "created.",
        fix="Remove search attributes that nothing uses (`temporal operator search-attribute remove "
        f"--namespace {client.namespace} --name …`), or give Syncline a namespace of its own "
        "(`temporal operator namespace create`, then TEMPORAL_NAMESPACE).",
    )


async def require_search_attributes(client: Client) -> None:
    """Raise ConfigurationError with the commands to run if the namespace lacks a search attribute.

    A run that sets an unregistered attribute would retry its workflow task forever.
    """
    missing = sorted(await missing_search_attributes(client))
    if missing:
        commands = " && ".join(
            f"temporal operator search-attribute create --namespace {client.namespace} "
            f"--name {name} --type {names.SEARCH_ATTRIBUTES[name]}"
            for name in missing
        )
        raise ConfigurationError(
            f"Namespace '{client.namespace}' lacks search attributes {', '.join(missing)}.",
            fix=f"Run: {commands}",
        )


async def register_search_attributes(client: Client) -> set[str]:
    """Register the search attributes that the namespace lacks, all or none, and return them."""
    missing = await missing_search_attributes(client)
    if missing:
        request = AddSearchAttributesRequest(
            namespace=client.namespace,
            search_attributes={name: _TYPES[names.SEARCH_ATTRIBUTES[name]] for name in missing},
        )
        try:
            await client.operator_service.add_search_attributes(request)
        except RPCError as error:
            if _TOO_MANY in error.message:
                raise _full(client, _cause(error)) from error
            if error.status is not RPCStatusCode.ALREADY_EXISTS:
                raise _unavailable(client, error) from error
    return missing


@contextmanager
def temporal_errors_mapped(client: Client) -> Iterator[None]:
    """Raise TemporalUnavailable in place of the SDK's RPCError."""
    try:
        yield
    except RPCError as error:
        raise _unavailable(client, error) from error


def _unavailable(client: Client, error: RPCError) -> TemporalUnavailable:
    return TemporalUnavailable(client.service_client.config.target_host, client.namespace, _cause(error))


def _cause(error: Exception) -> str:
    """Return the cause in one line: the SDK wraps it in the debug output of its transport."""
    said = _QUOTED.search(str(error))
    if said is not None:
        return said["cause"]
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


GRAPH: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_GRAPH)
PROVIDER: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_PROVIDER)
PROVIDER_VERSION: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_PROVIDER_VERSION)
PROVIDER_API: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_PROVIDER_API)
FALLBACK: Final = SearchAttributeKey.for_bool(names.ATTRIBUTE_FALLBACK)
STATUS: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_STATUS)
ROWS: Final = SearchAttributeKey.for_int(names.ATTRIBUTE_ROWS)
FAILURES: Final = SearchAttributeKey.for_int(names.ATTRIBUTE_FAILURES)
FINGERPRINT: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_FINGERPRINT)

SCHEDULED_BY: Final = SearchAttributeKey.for_keyword("TemporalScheduledById")
"""Id of the Schedule that started a run."""
SCHEDULED_FOR: Final = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")
"""Nominal time of that start."""
REPORTED_PROBLEMS: Final = SearchAttributeKey.for_keyword_list("TemporalReportedProblems")
"""Category and cause, set by the server while a run's workflow task has failed five times or more."""
