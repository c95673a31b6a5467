"""The registry: built-ins and real entry points through one door, and initialization once."""

import asyncio
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar, cast

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from typer.testing import CliRunner

from providers import BUILTIN
from syncline.cli import app
from syncline.control.services import Services
from syncline.errors import ProviderDuplicate, ProviderInvalid, ProviderNotReady
from syncline.operator.plugins import PluginsChecked, check_plugins
from syncline.provider import ProviderServices, SyncContext, SyncProvider, SyncResult
from syncline.registry import Registry
from syncline.settings import Settings
from syncline.testing.providers import FakeProvider

ROOT = Path(__file__).parents[2]

Install = Callable[..., None]

PROVIDER = """
from syncline.testing.providers import FakeProvider

def make():
    return FakeProvider({id!r}, version="7.1")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A function `(distribution, source, **entry points)` that installs a plugin for this test."""

    def write(distribution: str, source: str, version: str = "1.0", **points: str) -> None:
        module = f"{distribution.replace('-', '_')}_plugin"
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", encoding="utf-8"
        )
        lines = [f"{name} = {module}:{value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text(
            "\n".join(["[syncline.providers]", *lines, ""]), encoding="utf-8"
        )
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        monkeypatch.delitem(sys.modules, module, raising=False)

    monkeypatch.syspath_prepend(str(tmp_path))
    return write


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """Services over stores that nobody asks for."""
    nowhere = SecretStr("postgresql://nowhere.invalid/none")
    return Services(Settings(write_dsn=nowhere, graph_dsn=nowhere, qdrant_path=tmp_path / "qdrant"))


def test_builtins_and_plugins_come_through_one_door(install: Install) -> None:
    install("acme-plugin", PROVIDER.format(id="acme-sync"), version="2.3", acme="make")
    registry = Registry()
    registry.load(BUILTIN)
    assert registry.known("sync") == ["acme-sync", "default"]
    acme, default = registry.get("sync", "acme-sync"), registry.get("sync", "default")
    assert acme is not None
    assert default is not None
    assert (acme.distribution, acme.provider.version) == ("acme-plugin 2.3", "7.1")
    assert default.distribution == f"syncline {default.provider.version}"
    # A plugin need not be in every worker; what the application brings along is.
    assert (acme.routed, default.routed) == (True, False)
    assert not registry.problems


def test_plugins_can_be_left_aside(install: Install) -> None:
    install("acme-plugin", PROVIDER.format(id="acme-sync"), acme="make")
    registry = Registry()
    registry.load(BUILTIN, entry_points=False)
    assert registry.known("sync") == ["default"]


def test_an_id_that_is_taken_is_refused_naming_both_distributions(install: Install) -> None:
    install("acme-plugin", PROVIDER.format(id="acme-sync"), acme="make")
    install("zeta-plugin", PROVIDER.format(id="acme-sync"), zeta="make")
    registry = Registry()
    with capture_logs() as logs:
        registry.load()
    [problem] = registry.problems
    assert isinstance(problem, ProviderDuplicate)
    assert (problem.first, problem.second) == ("acme-plugin 1.0", "zeta-plugin 1.0")
    kept = registry.get("sync", "acme-sync")
    assert kept is not None
    assert kept.distribution == "acme-plugin 1.0"
    [told] = logs
    assert told["log_level"] == "error"
    assert "acme-plugin 1.0" in told["error"]
    assert "zeta-plugin 1.0" in told["error"]


def test_a_plugin_cannot_take_the_id_of_a_builtin(install: Install) -> None:
    install("acme-plugin", PROVIDER.format(id="default"), acme="make")
    registry = Registry()
    registry.load(BUILTIN)
    [problem] = registry.problems
    assert "'acme-plugin 1.0'" in str(problem)
    assert type(_provider(registry, "default")) in BUILTIN


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import a_module_that_is_not_there", "cannot be imported: ModuleNotFoundError"),
        ("make = (", "cannot be imported: SyntaxError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("raise RuntimeError('no licence')", "no licence"),
        ("", "cannot be imported: AttributeError"),
        ("def make(): raise OSError('no disk')", "creating an instance failed: OSError: no disk"),
        ("def make(needed): ...", "creating an instance failed: TypeError"),
        ("async def make(): ...", "it is an async function"),
        ("make = 'acme-sync'", "its id is None"),
        (
            "class make:\n    def __getattr__(self, name): raise OSError('broken')",
            "reading its attributes failed: OSError",
        ),
    ],
)
def test_a_broken_plugin_is_reported_by_name_and_the_others_load(
    install: Install, source: str, says: str
) -> None:
    install("acme-plugin", source, broken="make")
    install("zeta-plugin", PROVIDER.format(id="zeta-sync"), zeta="make")
    registry = Registry()
    with capture_logs() as logs:
        registry.load(BUILTIN)
    [problem] = registry.problems
    assert isinstance(problem, ProviderInvalid)
    assert (problem.name, problem.distribution) == ("broken", "acme-plugin 1.0")
    assert says in str(problem)
    assert registry.known("sync") == ["default", "zeta-sync"]
    assert [(told["log_level"], told["name"], told["distribution"]) for told in logs] == [
        ("error", "broken", "acme-plugin 1.0")
    ]


class Structural:
    """Has the members, and no base class."""

    id = "structural"
    version = "1"
    api_version = 1

    async def initialize(self, services: ProviderServices) -> None: ...

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        raise NotImplementedError

    async def close(self) -> None: ...


class Nominal(SyncProvider):
    """Subclasses the contract."""

    id = "nominal"
    version = "1"
    api_version = 1

    async def initialize(self, services: ProviderServices) -> None: ...

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        raise NotImplementedError

    async def close(self) -> None: ...


class Unfinished(SyncProvider):
    """Forgets `close`."""

    id = "unfinished"
    version = "1"
    api_version = 1

    async def initialize(self, services: ProviderServices) -> None: ...

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        raise NotImplementedError


@pytest.mark.parametrize(
    "contribution",
    [Structural, Structural(), partial(Structural), Nominal, Nominal()],
    ids=["class", "instance", "function", "subclass", "subclass instance"],
)
def test_a_class_an_instance_and_a_function_are_all_welcome(contribution: object) -> None:
    registry = Registry()
    registry.register("sync", contribution, "acme 1")
    assert len(registry.known("sync")) == 1


def _with(**changes: object) -> object:
    return type("Odd", (Structural,), changes)


@pytest.mark.parametrize(
    ("contribution", "says"),
    [
        (_with(id="Acme"), "its id is 'Acme'"),
        (_with(id="acme\n"), "its id is"),
        (_with(id=None), "its id is None"),
        (_with(version=3), "its version is not a str"),
        (_with(api_version=2), "written for api_version 2, and this Syncline has 1"),
        (_with(close=lambda self: None), "no async method 'close'"),
        (_with(sync_cycle=None), "no async method 'sync_cycle'"),
        (_with(prepare=lambda self, context: None), "no async method 'prepare'"),
        (_with(options_model=dict), "not a pydantic model class"),
        (Unfinished, "abstract"),
    ],
)
def test_an_object_that_is_no_provider_is_refused_with_the_reason(contribution: object, says: str) -> None:
    with pytest.raises(ProviderInvalid) as refused:
        Registry().register("sync", contribution, "acme 1", name="odd")
    assert says in str(refused.value)
    assert "'odd' of distribution 'acme 1'" in str(refused.value)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ProviderInvalid, match="its kind is 'telepathy'; known are sync, fact_decomposition"):
        Registry().register("telepathy", Structural, "acme 1")


def test_a_kind_has_the_members_of_its_contract() -> None:
    registry = Registry()
    registry.register("dimensions", FakeProvider("acme"), "acme 1")
    with pytest.raises(ProviderInvalid, match="it has no async method 'decompose'"):
        registry.register("fact_decomposition", FakeProvider("acme"), "acme 1")
    assert registry.get("sync", "acme") is None
    assert registry.get("dimensions", "acme") is not None


def test_an_entry_point_says_its_kind_itself() -> None:
    registry = Registry()
    registry.load([_with(kind="telepathy")], entry_points=False)
    [problem] = registry.problems
    assert "its kind is 'telepathy'" in str(problem)


async def test_concurrent_callers_share_one_initialize(services: Services) -> None:
    class Slow(FakeProvider):
        async def initialize(self, services: ProviderServices) -> None:
            self.initialized += 1
            await asyncio.sleep(0.01)

    slow = Slow("slow")
    registry = _registry(slow)
    found = await asyncio.gather(*(registry.initialized("sync", "slow", services) for _ in range(10)))
    assert slow.initialized == 1
    assert all(provider is slow for provider in found)


async def test_a_failed_initialize_is_tried_again_later_and_later(services: Services) -> None:
    class Flaky(FakeProvider):
        async def initialize(self, services: ProviderServices) -> None:
            self.initialized += 1
            if self.initialized < 9:
                raise ConnectionError("not yet")

    flaky, now = Flaky("flaky"), 0.0
    registry = Registry(clock=lambda: now)
    registry.register("sync", flaky, "tests 1")
    waits = []
    while flaky.initialized < 8:
        told = await asyncio.gather(
            *(registry.initialized("sync", "flaky", services) for _ in range(3)), return_exceptions=True
        )
        assert [type(error) for error in told] == [ProviderNotReady] * 3
        [error] = {str(error) for error in told}
        assert error.startswith(
            "Provider 'flaky' of distribution 'tests 1' is not ready: initialize raised "
            "ConnectionError: not yet (at tests/unit/test_registry.py:"
        )
        assert isinstance(told[0], ProviderNotReady)
        waits.append(told[0].retry_after_seconds)
        now += waits[-1] or 0
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert await registry.initialized("sync", "flaky", services) is flaky
    await registry.initialized("sync", "flaky", services)
    assert flaky.initialized == 9


async def test_an_initialize_without_end_is_given_up_and_a_close_without_end_is_told(
    services: Services,
) -> None:
    class Endless(FakeProvider):
        hangs = True

        async def initialize(self, services: ProviderServices) -> None:
            await self.close()

        async def close(self) -> None:
            if self.hangs:
                await asyncio.Event().wait()

    endless = Endless("endless")
    registry = Registry(initialize_seconds=0.01, close_seconds=0.01, clock=lambda: 0.0)
    registry.register("sync", endless, "tests 1")
    with pytest.raises(ProviderNotReady, match=r"initialize did not end within 0\.01 s and was cancelled"):
        await registry.initialized("sync", "endless", services)
    registry = registry.for_another_loop()
    endless.hangs = False
    assert await registry.initialized("sync", "endless", services) is endless
    endless.hangs = True
    with capture_logs() as logs:
        await registry.close()
    [told] = logs
    assert told["problem"] == "close did not end within 0.01 s and was cancelled"


async def test_a_registry_for_another_loop_initializes_and_closes_for_itself(services: Services) -> None:
    fake = FakeProvider("fake")
    registry = _registry(fake)
    other = registry.for_another_loop()
    await registry.initialized("sync", "fake", services)
    await other.initialized("sync", "fake", services)
    await other.close()
    assert (fake.initialized, fake.closed) == (2, 1)


async def test_a_cancelled_initialize_is_tried_again_by_whoever_waits(services: Services) -> None:
    class Stuck(FakeProvider):
        async def initialize(self, services: ProviderServices) -> None:
            self.initialized += 1
            if self.initialized == 1:
                await asyncio.Event().wait()

    stuck = Stuck("stuck")
    registry = _registry(stuck)
    first = asyncio.create_task(registry.initialized("sync", "stuck", services))
    await asyncio.sleep(0)
    second = asyncio.create_task(registry.initialized("sync", "stuck", services))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is stuck
    assert first.cancelled()


async def test_without_services_nothing_is_initialized() -> None:
    fake = FakeProvider("fake")
    with pytest.raises(RuntimeError, match="without services"):
        await _registry(fake).initialized("sync", "fake", None)
    assert fake.initialized == 0


async def test_an_unknown_provider_cannot_be_initialized(services: Services) -> None:
    with pytest.raises(LookupError, match=r"'ghost' is registered \(known: fake\)"):
        await _registry(FakeProvider("fake")).initialized("sync", "ghost", services)


async def test_close_goes_backwards_and_past_a_failure(services: Services) -> None:
    class Closing(FakeProvider):
        closed_in_order: ClassVar[list[str]] = []

        async def close(self) -> None:
            self.closed_in_order.append(self.id)
            if self.id == "b":
                raise OSError("cannot")

    registry = _registry(*(Closing(name) for name in "abcd"))
    for name in "cab":
        await registry.initialized("sync", name, services)
    with capture_logs() as logs:
        await registry.close()
        await registry.close()
    assert Closing.closed_in_order == ["b", "a", "c"]
    assert [(told["log_level"], told["provider"]) for told in logs] == [("error", "b")]


async def test_the_default_provider_runs_the_engine_only_after_initialize(services: Services) -> None:
    registry = Registry()
    registry.load(BUILTIN, entry_points=False)
    provider = _provider(registry, "default")
    with pytest.raises(RuntimeError, match="is not initialized"):
        await provider.sync_cycle(cast("SyncContext", None))


def test_loading_the_builtins_does_not_load_the_engine() -> None:
    code = """
        import sys
        from providers import BUILTIN
        from syncline.registry import Registry

        registry = Registry()
        registry.load(BUILTIN, entry_points=False)
        assert registry.known("sync") == ["default"], registry.problems
        print(sorted(name for name in sys.modules if name.startswith("syncline.engine")))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr


def _registry(*providers: FakeProvider) -> Registry:
    registry = Registry()
    for provider in providers:
        registry.register("sync", provider, "tests 1")
    return registry


def _provider(registry: Registry, provider_id: str) -> SyncProvider:
    found = registry.get("sync", provider_id)
    assert found is not None
    return found.provider


def test_check_tells_what_would_load_and_why_not(install: Install) -> None:
    """With the exception's type, file and line, and without asking a server."""
    install("acme-plugin", PROVIDER.format(id="acme-sync"), version="2.3", acme="make")
    install("broken-plugin", "import os\nos.nothing", broken="make")
    install("own-plugin", PROVIDER.format(id="default"), own="make")
    install("zeta-plugin", PROVIDER.format(id="acme-sync"), zeta="make")
    found = {plugin.entry_point: plugin for plugin in check_plugins(None).plugins}
    assert (found["acme"].provider, found["acme"].distribution) == ("acme-sync", "acme-plugin 2.3")
    assert found["acme"].problem is None
    assert "AttributeError" in str(found["broken"].problem)
    assert "broken_plugin_plugin.py:2" in str(found["broken"].problem)
    assert "'acme-plugin 2.3' and 'zeta-plugin 1.0'" in str(found["zeta"].problem)
    assert found["own"].problem is not None

    runner = CliRunner(env={"SYNCLINE_PLUGINS": "acme,nobody"})
    checked = runner.invoke(app, ["provider", "check", "--json"])
    assert checked.exit_code == 1
    answer = PluginsChecked.model_validate_json(checked.stdout)
    assert [plugin.entry_point for plugin in answer.plugins if plugin.problem is None] == ["acme"]
    assert answer.unmatched == ("nobody",)
    assert "'nobody'" in checked.stderr
    assert runner.invoke(app, ["provider", "check", "acme-plugin"]).exit_code == 0
    assert runner.invoke(app, ["provider", "check", "nowhere"]).exit_code == 1


def _called(method: str, call: object) -> object:
    return _with(**{method: call})


async def _needs_more(self: object, context: object, other: object) -> None: ...


async def _takes_none() -> None: ...


@pytest.mark.parametrize(
    ("contribution", "says"),
    [
        (_called("sync_cycle", _needs_more), "'sync_cycle' cannot be called as sync_cycle(context): missing"),
        (
            _called("initialize", _takes_none),
            "'initialize' cannot be called as initialize(services): ",
        ),
        (_called("close", _needs_more), "'close' cannot be called as close(): missing"),
    ],
)
def test_a_method_that_takes_other_arguments_is_refused(contribution: object, says: str) -> None:
    """When it registers, not by its first cycle."""
    with pytest.raises(ProviderInvalid, match=re.escape(says)):
        Registry().register("sync", contribution, "acme 1")
