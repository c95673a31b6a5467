"""The conformance suite: what every SyncProvider has to stand, as tests in a plugin author's own suite."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest
from pydantic import JsonValue

from syncline.devstack.postgres import EmbeddedPostgres
from syncline.engine import SchemaMap
from syncline.provider import SyncProvider
from syncline.testing.conformance.ground import KNOWLEDGE, Ground
from syncline.testing.conformance.items import ITEMS, VECTORS
from syncline.testing.conformance.mapped_ground import MappedGround
from syncline.testing.conformance.trial import Nonconforming, Subject, Trial

__all__ = ["Nonconforming", "exercise_provider", "try_item"]

_LONGEST = 180.0
"""Seconds of one item."""

T = TypeVar("T")


def exercise_provider(
    provider: Callable[[], SyncProvider],
    *,
    options: Mapping[str, JsonValue] | None = None,
    without: Mapping[str, str] | None = None,
    schema_map: SchemaMap | None = None,
    sources: str | None = None,
    targets: str | None = None,
    values: Mapping[str, str] | None = None,
) -> Callable[..., None]:
    """Return a test that pytest runs once per item: `test_it_conforms = exercise_provider(Acme)`.

    `provider` is what its entry point names: the class, or a function that returns an instance. `options` is
    what a graph would say under `composition.sync.options`. `without` leaves items out, by name, each with
    the reason that the skipped test then shows. Raise ValueError for an item that there is not.

    `schema_map`: what it syncs, if it is not the built-in knowledge graph. Tables of both sides and rows are
    made from it, or the tables by `sources` and `targets`, scripts of DDL without schema names. Row i of a
    table refers to the rows i of others; `values` are SQL over i for source columns that need other values,
    such as {"book_drafts.state": "'published'"}. The judge is the built-in engine, which syncs the same rows
    from the beginning into a schema of its own.

    It needs `syncline[testing]` and no plugin of pytest. It starts a PostgreSQL and a Temporal of its own;
    item `temporal` runs the worker too.
    """
    left_out = dict(without or {})
    if unknown := left_out.keys() - ITEMS.keys():
        raise ValueError(f"no item is named {', '.join(sorted(unknown))}; items are {', '.join(ITEMS)}")
    if schema_map is None and (sources or targets or values):
        raise ValueError("sources, targets and values go with schema_map")
    ground = KNOWLEDGE if schema_map is None else MappedGround(schema_map, sources, targets, values or {})
    subject = Subject(make=provider, options=options or {}, vectors=VECTORS not in left_out, ground=ground)

    @pytest.mark.parametrize("item", [_parameter(name, left_out.get(name)) for name in ITEMS])
    def conforms(item: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        # Not before: pytest wants to be the first to import what a conftest names in pytest_plugins.
        from syncline.testing import postgres

        plugins = request.config.pluginmanager
        if not plugins.has_plugin(postgres.__name__):
            plugins.register(postgres, postgres.__name__)
        server: EmbeddedPostgres = request.getfixturevalue("postgres_server")
        new_database: Callable[[str], str] = request.getfixturevalue("new_database")
        try:
            try_item(item, subject, server, new_database, tmp_path)
        except Nonconforming as refused:
            if refused.__cause__ is not None:
                raise  # the traceback of the provider's own error is worth showing
            sentence = str(refused)
        else:
            return
        pytest.fail(sentence, pytrace=False)

    return conforms


def try_item(
    name: str,
    subject: Subject,
    server: EmbeddedPostgres,
    new_database: Callable[[str], str],
    folder: Path,
) -> None:
    """Put a provider on trial for one item, over new databases; raise Nonconforming if it fails."""
    write_dsn, target_dsn = map(new_database, _templates(server, subject.ground))
    item = ITEMS[name]
    trial = Trial(
        item=name,
        advice=item.advice,
        subject=subject,
        write_dsn=write_dsn,
        target_dsn=target_dsn,
        folder=folder,
    )
    try:
        _run(item.check(trial), _LONGEST)
    except TimeoutError as error:
        trial.refuse("the item to be over in time", f"it was not after {_LONGEST:g} s", cause=error)


@cache
def _templates(server: EmbeddedPostgres, ground: Ground) -> tuple[str, str]:
    return _run(ground.prepare(server), _LONGEST)


def _run(work: Coroutine[object, object, T], seconds: float) -> T:
    """Return what a coroutine returns, on an event loop of its own.

    No plugin of pytest is asked for one; and a task that a provider leaves behind, even one that cannot be
    cancelled, ends with this loop.
    """
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(asyncio.wait_for(work, seconds))
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=2))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _parameter(name: str, reason: str | None) -> object:
    marks = [pytest.mark.skip(reason=reason)] if reason is not None else []
    return pytest.param(name, marks=marks, id=name)
