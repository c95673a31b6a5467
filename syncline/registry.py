"""Provider registry of one worker process: built-ins and plugins, by kind and id.

One module because loaded, registered and initialized are states of the same providers.
"""

import asyncio
import inspect
import math
import re
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from importlib.metadata import EntryPoint
from typing import Final, Generic, Literal, TypeVar, cast, overload
from uuid import UUID

from syncline import names
from syncline.concurrency import BaseExceptionRaised, CancelIgnored, TimedOut, bounded
from syncline.errors import ConfigurationError, ProviderDuplicate, ProviderInvalid, ProviderNotReady
from syncline.logs import get_log
from syncline.provider import (
    API_VERSION,
    FACT_DECOMPOSITION_API_VERSION,
    KINDS,
    FactDecompositionProvider,
    Provider,
    ProviderKind,
    ProviderServices,
    SyncProvider,
    options_model_of,
)
from syncline.raised import described

__all__ = ["Registered", "Registry", "distribution_of", "names_of", "plugins"]


ProviderT_co = TypeVar("ProviderT_co", bound=Provider, covariant=True)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """Requirements for providers of one kind."""

    api_version: int = 1
    work: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Its own async methods, with the names of their arguments."""
    optional: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Async methods that it may have."""

    @property
    def coroutines(self) -> dict[str, tuple[str, ...]]:
        """All async methods, with the names of the arguments they are called with."""
        return {"initialize": ("services",), **self.work, "close": ()}


_ID: Final = re.compile(r"[a-z][a-z0-9-]*")

# A new kind with a contract is one line here, and one overload of `get`, `initialized` and
# `syncline.control.resolution.resolve_provider`.
_KINDS: Final[dict[str, _Kind]] = {
    **dict.fromkeys(KINDS, _Kind()),
    "sync": _Kind(
        api_version=API_VERSION, work={"sync_cycle": ("context",)}, optional={"prepare": ("context",)}
    ),
    "fact_decomposition": _Kind(
        api_version=FACT_DECOMPOSITION_API_VERSION, work={"decompose": ("source", "options")}
    ),
}


@dataclass(frozen=True, kw_only=True)
class Registered(Generic[ProviderT_co]):
    """A provider, and the distribution that contributes it."""

    kind: str
    provider: ProviderT_co
    distribution: str
    """`name version` of the installed distribution."""
    routed: bool = False
    """Whether its cycles have a separate task queue, because not every worker has the provider."""
    required: bool = False
    """Whether the provider declares itself irreplaceable; then `on_missing` defaults to `hold`."""


_LONGEST_WAIT: Final = 60.0
_LONGEST_PROBLEM: Final = 500


@dataclass
class _Start:
    """State of the initialization of one provider."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    failures: int = 0
    not_before: float = 0.0
    problem: str = ""


class Registry:
    """Providers by kind and id. Only the registry calls their `initialize` and `close`."""

    def __init__(
        self,
        *,
        initialize_seconds: float = 60.0,
        close_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._initialize_seconds, self._close_seconds, self._clock = initialize_seconds, close_seconds, clock
        self._registered: dict[tuple[str, str], Registered[Provider]] = {}
        self._starts: defaultdict[tuple[str, str], _Start] = defaultdict(_Start)
        self._initialized: dict[tuple[str, str], Provider] = {}  # in order of initialization
        self._problems: list[ConfigurationError] = []
        self._misses: set[tuple[str, UUID, str]] = set()
        self._withdrawn: set[tuple[str, str]] = set()

    @property
    def problems(self) -> Sequence[ConfigurationError]:
        """Contributions that `load` could not register, and why; each error names its distribution."""
        return tuple(self._problems)

    def known(self, kind: str) -> Sequence[str]:
        """Return the registered ids of a kind, sorted."""
        return sorted(provider_id for of_kind, provider_id in self._registered if of_kind == kind)

    def registered(self) -> "Sequence[Registered[Provider]]":
        """Return all registered providers, ordered by kind and id."""
        return [registered for _, registered in sorted(self._registered.items(), key=lambda item: item[0])]

    def load(
        self,
        builtins: Iterable[object] = (),
        *,
        entry_points: bool = True,
        allowed: Collection[str] | None = None,
    ) -> None:
        """Register the built-ins, then the plugins of every installed distribution, in a stable order.

        Plugins are routed: a deployment installs them worker by worker. Built-ins are in every worker.
        A provider's attribute `kind` is its kind, `sync` if absent. A contribution that cannot be registered
        is logged, added to `problems` and skipped; it never stops the worker.

        With `allowed`, only the plugins that it names are imported: by entry point, by distribution, or as
        `distribution:entry-point`. A name without a match is a problem too.
        """
        own = f"syncline {metadata.version('syncline')}"
        for contribution in builtins:
            self._try(_label(contribution), own, partial(self._add_made, contribution, own))
        unused = set(allowed or ())
        for point in plugins() if entry_points else ():
            if allowed is not None:
                matching = names_of(point) & set(allowed)
                if not matching:
                    get_log().warning(
                        "plugin not allowed, not imported",
                        name=point.name,
                        distribution=distribution_of(point),
                        setting="SYNCLINE_PLUGINS",
                    )
                    continue
                unused -= matching
            self._try(point.name, distribution_of(point), partial(self.add_plugin, point))

        for name in sorted(unused):
            problem = "SYNCLINE_PLUGINS names it, but no installed distribution contains it"
            self._leave_out(ProviderInvalid(name, distribution="none", problem=problem), name, "none")

    def register(
        self,
        kind: str,
        contribution: object,
        distribution: str,
        *,
        name: str | None = None,
        routed: bool = False,
    ) -> None:
        """Register a provider, its class, or a function without arguments that returns one.

        Raise ProviderInvalid, or ProviderDuplicate if the id is taken. `distribution` contributes it, as
        `name version`; `name` identifies the contribution in messages. A provider that is not `routed` must
        be in every worker.
        """
        label = name or _label(contribution)
        self._add(kind, _made(contribution, label, distribution), label, distribution, routed=routed)

    def withdraw(self, kind: str, provider_id: str) -> None:
        """Exclude a provider from new work in this process, because it cannot run now."""
        self._withdrawn.add((kind, provider_id))

    def restore(self, kind: str, provider_id: str) -> None:
        """Undo `withdraw`."""
        self._withdrawn.discard((kind, provider_id))

    def withdrawn(self, kind: str, provider_id: str) -> bool:
        """Return whether a provider is withdrawn."""
        return (kind, provider_id) in self._withdrawn

    @overload
    def get(self, kind: Literal["sync"], provider_id: str) -> Registered[SyncProvider] | None: ...

    @overload
    def get(
        self, kind: Literal["fact_decomposition"], provider_id: str
    ) -> Registered[FactDecompositionProvider] | None: ...

    @overload
    def get(self, kind: ProviderKind, provider_id: str) -> Registered[Provider] | None: ...

    def get(self, kind: ProviderKind, provider_id: str) -> Registered[Provider] | None:
        """Return the provider with this id, or None if no distribution contributes it."""
        # `register` has checked the types that the overloads claim.
        return self._registered.get((kind, provider_id))

    @overload
    async def initialized(
        self, kind: Literal["sync"], provider_id: str, services: ProviderServices | None
    ) -> SyncProvider: ...

    @overload
    async def initialized(
        self, kind: Literal["fact_decomposition"], provider_id: str, services: ProviderServices | None
    ) -> FactDecompositionProvider: ...

    @overload
    async def initialized(
        self, kind: ProviderKind, provider_id: str, services: ProviderServices | None
    ) -> Provider: ...

    async def initialized(
        self, kind: ProviderKind, provider_id: str, services: ProviderServices | None
    ) -> Provider:
        """Return the provider after its `initialize` has succeeded once.

        Concurrent callers share one attempt. After a failed attempt, calls raise ProviderNotReady for one
        second; then the next call tries again. The delay doubles, up to a minute. Raise LookupError for an
        unknown provider.
        """
        if services is None:
            raise RuntimeError(
                f"Provider '{provider_id}' cannot be initialized without services. Open them at the start of "
                "the process: `async with Services.open(settings, registry=registry) as services`."
            )
        registered = self.get(kind, provider_id)
        if registered is None:
            known = ", ".join(self.known(kind)) or "none"
            raise LookupError(f"no {kind} provider '{provider_id}' is registered (known: {known})")
        key = (kind, provider_id)
        start = self._starts[key]
        async with start.lock:
            if key not in self._initialized:
                if self._clock() >= start.not_before:
                    await self._initialize(registered, start, services)
                if start.problem:
                    seconds = max(1, math.ceil(start.not_before - self._clock()))
                    raise _not_ready(registered, start, seconds)
                self._initialized[key] = registered.provider
        return registered.provider

    async def close(self) -> None:
        """Close the initialized providers, the latest first. Failures and timeouts are logged."""
        while self._initialized:
            key, provider = self._initialized.popitem()
            problem, cause = await _problem_of(
                provider.close(), "close", self._close_seconds, _package(provider)
            )
            if problem:
                get_log().error(
                    "provider did not close",
                    kind=key[0],
                    provider=provider.id,
                    distribution=self._registered[key].distribution,
                    problem=problem,
                    exc_info=cause,
                )

    def for_another_loop(self) -> "Registry":
        """Return a registry of the same providers with separate initialization and close.

        No provider is withdrawn in it: it is for the event loop in which a provider runs.
        """
        other = Registry(
            initialize_seconds=self._initialize_seconds, close_seconds=self._close_seconds, clock=self._clock
        )
        other._registered, other._problems, other._misses = self._registered, self._problems, self._misses
        return other

    def first_miss(self, kind: str, graph_id: UUID, provider_id: str) -> bool:
        """Record that the graph's provider is missing; return whether this is the first time."""
        miss = (kind, graph_id, provider_id)
        first = miss not in self._misses
        self._misses.add(miss)
        return first

    async def _initialize(
        self, registered: Registered[Provider], start: _Start, services: ProviderServices
    ) -> None:
        work, package = registered.provider.initialize(services), _package(registered.provider)
        start.problem, cause = await _problem_of(work, "initialize", self._initialize_seconds, package)
        if not start.problem:
            return
        start.failures += 1
        start.not_before = self._clock() + min(2.0 ** (start.failures - 1), _LONGEST_WAIT)
        get_log().error(
            "provider did not initialize",
            kind=registered.kind,
            provider=registered.provider.id,
            distribution=registered.distribution,
            attempt=start.failures,
            problem=start.problem,
            exc_info=cause,
        )

    def _add(
        self, kind: object, provider: object, label: str, distribution: str, *, routed: bool
    ) -> Registered[Provider]:
        problem = _problem(provider, kind)
        if problem is not None:
            raise ProviderInvalid(label, distribution=distribution, problem=problem)
        accepted = cast("Provider", provider)
        key = (str(kind), accepted.id)
        if key in self._registered:
            raise ProviderDuplicate(
                accepted.id, kind=key[0], first=self._registered[key].distribution, second=distribution
            )
        self._registered[key] = added = Registered(
            kind=key[0],
            provider=accepted,
            distribution=distribution,
            routed=routed,
            required=getattr(accepted, "required", False) is True,
        )
        return added

    def add_plugin(self, point: EntryPoint) -> Registered[Provider]:
        """Import a plugin and register its provider; raise ProviderInvalid or ProviderDuplicate."""
        distribution = distribution_of(point)
        contribution = _loaded(point, distribution)
        return self._add_made(contribution, distribution, name=point.name, routed=True)

    def _add_made(
        self, contribution: object, distribution: str, *, name: str = "", routed: bool = False
    ) -> Registered[Provider]:
        label = name or _label(contribution)
        try:
            provider = _made(contribution, label, distribution)
            kind = getattr(provider, "kind", "sync")
            return self._add(kind, provider, label, distribution, routed=routed)
        except ConfigurationError:
            raise
        except Exception as error:  # a plugin's attributes may run any code
            problem = f"reading its attributes failed: {described(error, _package(contribution))}"
            raise ProviderInvalid(label, distribution=distribution, problem=problem) from error

    def _try(self, name: str, distribution: str, add: Callable[[], object]) -> None:
        try:
            add()
        except ConfigurationError as error:
            self._leave_out(error, name, distribution)

    def _leave_out(self, error: ConfigurationError, name: str, distribution: str) -> None:
        self._problems.append(error)
        get_log().error(
            "provider left out",
            name=name,
            distribution=distribution,
            error=str(error),
            exc_info=error if error.__cause__ else None,
        )


async def _problem_of(
    work: Awaitable[None], name: str, seconds: float, package: str
) -> tuple[str, Exception | None]:
    """Return the problem of a call of a provider's method, and its exception; ("", None) if it succeeded."""
    try:
        await bounded(work, seconds=seconds)
    except TimedOut:
        return f"{name} did not end within {seconds:g} s and was cancelled", None
    except CancelIgnored:
        return f"{name} did not end within {seconds:g} s, and ignored its cancellation", None
    except BaseExceptionRaised as error:
        return f"{name} raised {error}", error
    except Exception as error:
        return f"{name} raised {described(error, package)}"[:_LONGEST_PROBLEM], error
    return "", None


def _not_ready(registered: Registered[Provider], start: _Start, seconds: int) -> ProviderNotReady:
    error = ProviderNotReady(
        registered.provider.id,
        distribution=registered.distribution,
        trouble="not_ready",
        did=f"is not ready: {start.problem}",
        do=f"It is retried in {seconds} s; its graphs wait until then.",
    )
    error.retry_after_seconds = float(seconds)
    return error


def plugins() -> Sequence[EntryPoint]:
    """Return the entry points of all installed distributions, in the order in which they are registered."""
    found = metadata.entry_points(group=names.ENTRY_POINT_GROUP)
    return sorted(found, key=lambda point: (distribution_of(point), point.name))


def names_of(point: EntryPoint) -> set[str]:
    """Return the names of a plugin that SYNCLINE_PLUGINS may use."""
    if point.dist is None:
        return {point.name}
    distribution = re.sub(r"[-_.]+", "-", point.dist.name).lower()
    return {point.name, point.dist.name, distribution, f"{distribution}:{point.name}"}


def _package(contribution: object) -> str:
    """Return the top-level package of a provider, its class or a function."""
    module = getattr(contribution, "__module__", None) or type(contribution).__module__
    return str(module).partition(".")[0]


def _label(contribution: object) -> str:
    return str(getattr(contribution, "__name__", type(contribution).__name__))


def distribution_of(point: EntryPoint) -> str:
    """Return `name version` of the distribution that contributes the entry point."""
    return "unknown" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _loaded(point: EntryPoint, distribution: str) -> object:
    try:
        loaded: object = point.load()
    except (Exception, SystemExit) as error:  # a plugin's import may raise anything
        package = point.value.partition(":")[0].partition(".")[0]
        problem = f"'{point.value}' cannot be imported: {described(error, package)}"
        raise ProviderInvalid(point.name, distribution=distribution, problem=problem) from error
    return loaded


def _made(contribution: object, name: str, distribution: str) -> object:
    """Return the instance created by a class or function; anything else is the instance itself."""
    if not isinstance(contribution, type) and (hasattr(contribution, "id") or not callable(contribution)):
        return contribution
    if inspect.iscoroutinefunction(contribution):
        problem = "it is an async function; it must return the provider at once and do the rest in initialize"
        raise ProviderInvalid(name, distribution=distribution, problem=problem)
    try:
        made: object = contribution()
    except (Exception, SystemExit) as error:
        problem = f"creating an instance failed: {described(error, _package(contribution))}"
        raise ProviderInvalid(name, distribution=distribution, problem=problem) from error
    return made


def _problem(provider: object, kind: object) -> str | None:
    """Return why an object is not a provider of the kind, and the fix; None if it is one."""
    rules = _KINDS.get(kind) if isinstance(kind, str) else None
    if rules is None:
        return f"its kind is {kind!r}; known are {', '.join(_KINDS)}"
    provider_id = getattr(provider, "id", None)
    if not (isinstance(provider_id, str) and _ID.fullmatch(provider_id)):
        return f"its id is {provider_id!r}; it must be a str like 'acme-sync' ({_ID.pattern})"
    if not isinstance(getattr(provider, "version", None), str):
        return "its version is not a str"
    api_version = getattr(provider, "api_version", None)
    if api_version != rules.api_version:
        return f"it was written for api_version {api_version!r}, and this Syncline has {rules.api_version}"
    optional = {name: given for name, given in rules.optional.items() if hasattr(provider, name)}
    for name, arguments in {**rules.coroutines, **optional}.items():
        method = getattr(provider, name, None)
        if not inspect.iscoroutinefunction(method):
            return f"it has no async method '{name}'"
        try:
            inspect.signature(method).bind(*arguments)
        except (TypeError, ValueError) as error:
            return f"its method '{name}' cannot be called as {name}({', '.join(arguments)}): {error}"
    try:
        options_model_of(provider)
    except TypeError as error:
        return str(error)
    return None
