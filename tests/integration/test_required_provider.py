"""A provider that has said that nothing can stand in for it is waited for, also when nobody has it any more."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
import structlog.testing
from pydantic import SecretStr

from syncline.control.graphs import GraphDraft
from syncline.control.resolution import resolve_sync_provider
from syncline.control.services import Services
from syncline.control.workers import InstalledProvider
from syncline.registry import Registry
from syncline.settings import Settings
from syncline.testing.providers import FakeProvider


class Required(FakeProvider):
    """One that no engine can stand in for."""

    required = True


@pytest_asyncio.fixture(loop_scope="session")
async def services(new_database: Callable[[], str], tmp_path: Path) -> AsyncIterator[Services]:
    dsn = SecretStr(new_database())
    async with Services.open(Settings(write_dsn=dsn, graph_dsn=dsn, qdrant_path=tmp_path)) as opened:
        await opened.prepare_control()
        yield opened


def installed(*providers: FakeProvider) -> list[InstalledProvider]:
    registry = Registry()
    for provider in providers:
        registry.register("sync", provider, "acme 1.0", routed=True)
    return [
        InstalledProvider(
            kind=found.kind,
            id=found.provider.id,
            version="1",
            api_version=1,
            distribution="acme 1.0",
            routed=True,
            required=found.required,
        )
        for found in registry.registered()
    ]


def worker() -> dict[str, object]:
    return {
        "id": uuid4(), "identity": "w", "task_queue": "syncline", "syncline_version": "1",
        "deployment_version": None, "python_version": "3", "problems": [],
    }  # fmt: skip


async def on_missing(services: Services, **entry: str) -> tuple[str | None, str]:
    """Return what the graph's `on_missing` comes to when nobody has the provider."""
    slug = f"g{uuid4().hex[:8]}"
    composition = {"sync": {"provider": "acme", **entry}}
    await services.graphs.add(GraphDraft.model_validate({"slug": slug, "composition": composition}))
    resolved = await resolve_sync_provider(services, slug)
    assert resolved.provider is None
    assert resolved.entry is not None
    return resolved.entry.on_missing, resolved.detail


async def test_a_required_provider_that_is_gone_is_held_by_default(services: Services) -> None:
    assert (await on_missing(services))[0] == "fallback"
    gone = worker()
    await services.workers.upsert(gone, providers=installed(Required("acme")))
    await services.workers.delete(gone["id"])  # type: ignore[arg-type]
    assert (await on_missing(services))[0] == "hold"
    assert (await on_missing(services, on_missing="fail"))[0] == "fail"
    with structlog.testing.capture_logs() as lines:
        said, detail = await on_missing(services, on_missing="fallback")
    assert said == "fallback"
    assert "declares itself required" in detail
    assert [
        line["log_level"] for line in lines if "required provider replaced by fallback" in line["event"]
    ] == ["warning"]


async def test_a_provider_that_is_required_no_longer_is_forgotten_when_all_say_so(services: Services) -> None:
    old, new = worker(), worker()
    await services.workers.upsert(old, providers=installed(Required("acme")))
    await services.workers.upsert(new, providers=installed(FakeProvider("acme")))
    assert await services.workers.required("sync", "acme")
    await services.workers.delete(old["id"])  # type: ignore[arg-type]
    await services.workers.upsert(new, providers=installed(FakeProvider("acme")))
    assert not await services.workers.required("sync", "acme")


@pytest.mark.parametrize("said", ["yes", 1, None])
def test_only_true_is_required(said: object) -> None:
    provider = FakeProvider("acme")
    provider.required = said  # type: ignore[attr-defined]
    assert [found.required for found in installed(provider)] == [False]
