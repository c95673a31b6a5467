"""Runs all health checks of one worker: stores, control plane, vectors, embeddings, other workers.

One module because it is the list of the checks, with the stores and graphs that each is asked of.
"""

import asyncio
import platform
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from typing import Final

from syncline import names
from syncline.capture.listen.connection import obstacle
from syncline.capture.listen.status import listened_to, listener_name
from syncline.control.graphs import Graph
from syncline.control.maps import MapOptions, map_options
from syncline.control.readiness import for_development, reach_vectors
from syncline.control.services import Role, Services
from syncline.control.workers import WorkerRecord
from syncline.engine.table_map import SchemaMap
from syncline.errors import MapInvalid, MapNotFound, StoreError
from syncline.messages.base import GraphStatus
from syncline.migrations.revisions import CONTROL, ENGINE, GRAPH, WRITE, Side, schemas_behind
from syncline.operator.health.check import Check, CheckStatus, Health, bounded, listed, skew_check
from syncline.operator.health.columns import check_new_columns
from syncline.operator.health.embeddings import check_budgets, check_embedding, check_second_embedding
from syncline.operator.health.kept import check_kept
from syncline.operator.health.maps import check_maps
from syncline.operator.health.owed import check_owed
from syncline.operator.health.postgres import check_postgres, tls_checks
from syncline.operator.health.rights import check_policies, check_positions, check_rights, needed_rights
from syncline.operator.health.tenancy import check_capture, check_locks, check_role, check_schemas
from syncline.operator.health.withheld import check_withheld
from syncline.quoting import counted
from syncline.settings import FIRST_EMBEDDING, SECOND_EMBEDDING

__all__ = ["check_listener", "examine"]

_FIX: Final = (
    "A worker without SYNCLINE_NOTIFY=false starts to listen within seconds; if none does, see the reason in "
    "its log: `notification listener unavailable`. Until then only the Schedules start runs."
)


async def check_listener(name: str, services: Services, key: str | None, *, namespace: str) -> Check:
    """Return the check of one write store, or raise StoreError if it does not answer."""
    store = services.store("write", key)
    async with store.driver() as connection:
        found = await obstacle(connection.fetchval)
    if found is not None:
        return Check(name=name, status=CheckStatus.WARN, found=found.problem, fix=found.fix)
    if await listened_to(store, listener_name(namespace, services, store)):
        return Check(name=name, found="a worker listens: changes start runs at once")
    if not services.settings.notify:
        return Check(name=name, found="no worker listens; this one has SYNCLINE_NOTIFY=false")
    return Check(name=name, status=CheckStatus.WARN, found="no worker listens", fix=_FIX)


_SECONDS: Final = 8.0
"""Maximum seconds of each check; they run concurrently."""
_VECTOR_SECONDS: Final = 4.0
"""The same of a vector store: an operator who waits little longer sees it named, and not the worker."""
_MOST_NAMED: Final = 100
_MIGRATE: Final = "Run `syncline migrate` where the stores can be reached."
_EMBEDDING_FIX: Final = "Check SYNCLINE_EMBEDDING_URL, _API_KEY and _MODEL of the workers."


async def examine(services: Services, *, identity: str, namespace: str, asked_at: datetime) -> Health:
    """Run all checks; never raises, and takes a few seconds at most.

    `namespace` is Temporal's: the workers of one namespace and task queue share one listener per write-db.
    """
    # The request took some time to arrive, so a worker's clock may appear slightly ahead.
    ahead = datetime.now(UTC) - asked_at
    graphs, workers = await asyncio.gather(_graphs(services), _workers(services))
    looks = [
        *_store_looks(services, graphs, workers=max(1, len(workers))),
        *_rights_looks(services, graphs),
        *_tenancy_looks(services, graphs),
        *_listener_looks(services, graphs, namespace),
        *_policy_looks(services, graphs),
        _look("maps", partial(check_maps, services, graphs), fix="See the check of control plane."),
        *_column_looks(services, graphs),
        _look("control plane: migrations", partial(_control_revision, services), fix=_MIGRATE),
        *(
            _look(f"{side.name} migrations", partial(_revisions, services, graphs, side), fix=_MIGRATE)
            for side in (WRITE, GRAPH, ENGINE)
        ),
        *_vector_looks(services, graphs),
        _look("embedding", partial(check_embedding, services), fix=_EMBEDDING_FIX),
        _look(
            "second embedding",
            partial(check_second_embedding, services),
            fix=_EMBEDDING_FIX.replace(FIRST_EMBEDDING, SECOND_EMBEDDING),
        ),
        _look(
            "embedding: budgets",
            partial(check_budgets, services, graphs),
            fix="See the check of control plane.",
        ),
        _look("rebuilds", partial(check_kept, services, graphs), fix="See the check of control plane."),
        _look("embedding: graphs", partial(_recorded, services), fix="See the check of control plane."),
    ]
    found = await asyncio.gather(*looks)
    return Health(
        worker=identity,
        checks=(
            Check(
                name="worker",
                found=f"{identity}, Syncline {version('syncline')}, Python {platform.python_version()}",
            ),
            skew_check(
                "worker: clock", ahead - timedelta(seconds=1), ahead, whose="the worker or Temporal's server"
            ),
            *_fleet(workers),
            *(check for checks in found for check in checks),
        ),
    )


def _look(
    name: str,
    look: Callable[[], Awaitable[Sequence[Check]]],
    *,
    fix: str,
    seconds: float = _SECONDS,
) -> Awaitable[Sequence[Check]]:
    return bounded(name, seconds, look, fix=fix)


async def _graphs(services: Services) -> Sequence[Graph]:
    """Return the graphs that are synced; none while the control plane is down, which has its own check."""
    try:
        async with asyncio.timeout(_SECONDS):
            records = await services.graphs.records()
    except (StoreError, TimeoutError):
        return ()
    return [graph for graph in records.valid if graph.status is not GraphStatus.ARCHIVED]


async def _workers(services: Services) -> Sequence[WorkerRecord]:
    """Return the registered workers; none while the control plane is down."""
    try:
        async with asyncio.timeout(_SECONDS):
            return await services.workers.list()
    except (StoreError, TimeoutError):
        return ()


def _store_looks(
    services: Services, graphs: Sequence[Graph], *, workers: int
) -> list[Awaitable[Sequence[Check]]]:
    """Return the checks of each store: the default stores, and those that graphs refer to."""
    wanted = workers * services.settings.pool_size
    places: dict[tuple[Role, str | None], str] = {("write", None): "write-db", ("graph", None): "graph-db"}
    for graph in graphs:
        places.setdefault(("write", graph.write_store), f"write-db {graph.write_store}")
        places.setdefault(("graph", graph.graph_store), f"graph-db {graph.graph_store}")

    async def one(name: str, role: Role, key: str | None, setting: str) -> Sequence[Check]:
        store = services.store(role, key)
        found = await check_postgres(name, store, wanted=wanted, setting=setting, writers=role == "write")
        return [*found, *tls_checks(name, store, setting)]

    async def control() -> Sequence[Check]:
        store, setting = services.control, "SYNCLINE_CONTROL_DSN"
        found = await check_postgres("control plane", store, wanted=wanted, setting=setting, writers=False)
        return [*found, *tls_checks("control plane", store, setting)]

    looks = []
    for (role, key), name in places.items():
        setting = f"SYNCLINE_{role.upper()}_DSN" if key is None else f"key '{key}' of SYNCLINE_STORES"
        fix = f"Bring the server up, or correct {setting} of the workers."
        looks.append(_look(name, partial(one, name, role, key, setting), fix=fix))
    if services.settings.control_dsn is not None:
        fix = "Bring the server up, or correct SYNCLINE_CONTROL_DSN of the workers."
        looks.append(_look("control plane", control, fix=fix))
    return looks


async def _alone(check: Awaitable[Check]) -> Sequence[Check]:
    return [await check]


async def _if_it_answers(name: str, look: Awaitable[Sequence[Check]]) -> Sequence[Check]:
    """Return the checks of `look`; a skipped check if the store is unavailable, which has its own check."""
    try:
        return await look
    except StoreError:
        store = name.partition(":")[0]
        return [Check(name=name, status=CheckStatus.SKIP, found=f"see the check of {store}")]


def _policy_looks(services: Services, graphs: Sequence[Graph]) -> list[Awaitable[Sequence[Check]]]:
    """Return the row-level-security checks of each store that has a graph."""
    places: dict[tuple[Role, str | None], list[str]] = {}
    for graph in graphs:
        places.setdefault(("write", graph.write_store), []).append(graph.source_schema)
        shadow = names.shadow_schema(graph.schema_name)
        places.setdefault(("graph", graph.graph_store), []).extend([graph.schema_name, shadow])

    async def one(name: str, role: Role, key: str | None, schemas: Sequence[str]) -> Sequence[Check]:
        store = services.store(role, key)
        return await _if_it_answers(name, check_policies(name, store, schemas, target=role == "graph"))

    async def put_back(name: str, key: str | None, schemas: Sequence[str]) -> Sequence[Check]:
        store = services.store("write", key)
        return await _if_it_answers(name, check_positions(name, store, schemas))

    looks = []
    for (role, key), schemas in places.items():
        name = f"{role}-db: row level security" if key is None else f"{role}-db {key}: row level security"
        look = partial(one, name, role, key, schemas)
        store = name.partition(":")[0]
        looks.append(_look(name, look, fix=f"See the check of {store}."))
        if role == "write":
            past = f"{store}: its past"
            looks.append(_look(past, partial(put_back, past, key, schemas), fix=f"See the check of {store}."))
    return looks


def _column_looks(services: Services, graphs: Sequence[Graph]) -> list[Awaitable[Sequence[Check]]]:
    """Return the checks of each graph-db for what somebody has to decide about, and for owed keys."""
    places: dict[str | None, dict[str, Graph]] = {}
    for graph in graphs:
        places.setdefault(graph.graph_store, {})[graph.schema_name] = graph

    async def one(name: str, key: str | None) -> Sequence[Check]:
        return await _if_it_answers(name, check_new_columns(name, services.store("graph", key), places[key]))

    async def owed(name: str, key: str | None) -> Sequence[Check]:
        shadows = {
            names.shadow_schema(schema): graph for schema, graph in places[key].items() if graph.shadowed
        }
        here = {**places[key], **shadows}
        return await _if_it_answers(name, check_owed(name, services.store("graph", key), here))

    async def withheld(name: str, key: str | None) -> Sequence[Check]:
        return await _if_it_answers(name, check_withheld(name, services.store("graph", key), places[key]))

    looks = []
    for key in places:
        store = "graph-db" if key is None else f"graph-db {key}"
        for name, look in (
            (f"{store}: new columns", one),
            (f"{store}: keys owed", owed),
            (f"{store}: removals", withheld),
        ):
            looks.append(_look(name, partial(look, name, key), fix=f"See the check of {store}."))
    return looks


def _rights_looks(services: Services, graphs: Sequence[Graph]) -> list[Awaitable[Sequence[Check]]]:
    """Return the privilege checks of each database: whether the workers' role has all that it needs."""
    apart = services.settings.control_dsn is not None
    having: dict[tuple[Role, str | None], list[Graph]] = {("write", None): [], ("graph", None): []}
    for graph in graphs:
        having.setdefault(("write", graph.write_store), []).append(graph)
        having.setdefault(("graph", graph.graph_store), []).append(graph)

    async def one(name: str, role: Role, key: str | None) -> Sequence[Check]:
        here = having[role, key]
        control = not apart and (role, key) == ("graph", None)
        shadowed = [graph for graph in here if graph.shadowed and role == "graph"]
        maps = await _stored_maps(services, here) if role == "write" else {}
        needed = needed_rights(role, here, control=control, maps=maps)
        store = services.store(role, key)
        return await _if_it_answers(name, _alone(check_rights(name, store, needed, shadowed=shadowed)))

    async def control_plane(name: str) -> Sequence[Check]:
        needed = needed_rights(None, (), control=True)
        return await _if_it_answers(name, _alone(check_rights(name, services.control, needed)))

    places = {(role, key): f"{role}-db" if key is None else f"{role}-db {key}" for role, key in having}
    looks = [
        _look(
            f"{place}: rights",
            partial(one, f"{place}: rights", role, key),
            fix=f"See the check of {place}.",
        )
        for (role, key), place in places.items()
    ]
    if apart:
        name = "control plane: rights"
        looks.append(_look(name, partial(control_plane, name), fix="See the check of control plane."))
    return looks


async def _stored_maps(services: Services, graphs: Sequence[Graph]) -> dict[str, SchemaMap]:
    """Return slug -> stored map; one that cannot be read is missing, and its graph's runs say why."""
    named = {graph.slug: map_options(graph.composition).shared for graph in graphs}
    maps: dict[MapOptions, SchemaMap] = {}
    for options in set(named.values()):  # many graphs may share a map
        with suppress(MapNotFound, MapInvalid, StoreError):
            stored = await services.maps.load_shared(options)
            if stored is not None:
                maps[options] = stored[1]
    return {slug: maps[options] for slug, options in named.items() if options in maps}


def _tenancy_looks(services: Services, graphs: Sequence[Graph]) -> list[Awaitable[Sequence[Check]]]:
    """Return the tenancy checks of each write-db and graph-db: who could misuse a worker's privileges."""
    roles: tuple[Role, ...] = ("write", "graph")
    places: dict[tuple[Role, str | None], dict[str, str]] = {(role, None): {} for role in roles}
    for graph in graphs:
        places.setdefault(("write", graph.write_store), {})[graph.source_schema] = graph.slug
        places.setdefault(("graph", graph.graph_store), {})[graph.schema_name] = graph.slug

    async def one(role: Role, key: str | None, schemas: Mapping[str, str]) -> Sequence[Check]:
        store = services.store(role, key)
        setting = f"SYNCLINE_{role.upper()}_DSN" if key is None else f"key '{key}' of SYNCLINE_STORES"
        name = f"{role}-db" if key is None else f"{role}-db {key}"
        checks = [*await _if_it_answers(f"{name}: role", check_role(name, store, setting=setting))]
        if checks and checks[0].status is CheckStatus.SKIP:
            return checks
        if role == "write":
            return [*checks, *await check_capture(name, store, schemas)]
        return [
            *checks,
            *await check_schemas(name, store, schemas),
            *await check_locks(name, store, schemas),
        ]

    looks = []
    for (role, key), schemas in places.items():
        name = f"{role}-db" if key is None else f"{role}-db {key}"
        looks.append(
            _look(f"{name}: role", partial(one, role, key, schemas), fix=f"See the check of {name}.")
        )
    return looks


def _listener_looks(
    services: Services, graphs: Sequence[Graph], namespace: str
) -> list[Awaitable[Sequence[Check]]]:
    """Return the listener check of each write-db that has a graph with notifications."""

    async def one(name: str, key: str | None) -> Sequence[Check]:
        return [await check_listener(name, services, key, namespace=namespace)]

    heard = {
        graph.write_store: "write-db" if graph.write_store is None else f"write-db {graph.write_store}"
        for graph in graphs
        if graph.status is GraphStatus.ACTIVE and graph.schedule.notify
    }
    return [
        _look(f"{name}: listener", partial(one, f"{name}: listener", key), fix=f"See the check of {name}.")
        for key, name in heard.items()
    ]


def _vector_looks(services: Services, graphs: Sequence[Graph]) -> list[Awaitable[Sequence[Check]]]:
    async def one(name: str, key: str | None) -> Sequence[Check]:
        store = await reach_vectors(services, key)
        fix = for_development(services.settings).get("embedded vector store") if key is None else None
        status = CheckStatus.OK if fix is None else CheckStatus.WARN
        return [Check(name=name, status=status, found=await store.describe(), fix=fix)]

    looks = []
    for key in dict.fromkeys([None, *(graph.qdrant_store for graph in graphs)]):
        name = "qdrant" if key is None else f"qdrant {key}"
        setting = "SYNCLINE_QDRANT_URL and _API_KEY" if key is None else f"key '{key}' of SYNCLINE_QDRANTS"
        fix = f"Bring Qdrant up, or correct {setting} of the workers; until then only vectors are delayed."
        looks.append(_look(name, partial(one, name, key), fix=fix, seconds=_VECTOR_SECONDS))
    return looks


async def _recorded(services: Services) -> Sequence[Check]:
    """Return the check that this worker would make the vectors that each graph has."""
    name = "embedding: graphs"
    try:
        foreign = await services.foreign_vectors()
    except StoreError:
        return [Check(name=name, status=CheckStatus.SKIP, found="see the check of control plane")]
    if not foreign:
        return [Check(name=name, found="its settings are those that the graphs' vectors are made with")]
    return [
        Check(
            name=name,
            status=CheckStatus.FAIL,
            found=listed([str(problem) for problem in foreign], between=" "),
            fix="Until then this worker writes no vectors of them, and pays for none.",
        )
    ]


async def _control_revision(services: Services) -> Sequence[Check]:
    behind = await schemas_behind(services.control, CONTROL, ["syncline"])
    name = "control plane: migrations"
    if not behind:
        return [Check(name=name, found="up to date")]
    return [Check(name=name, status=CheckStatus.FAIL, found=f"it has {behind['syncline']}", fix=_MIGRATE)]


async def _revisions(services: Services, graphs: Sequence[Graph], side: Side) -> Sequence[Check]:
    """Return the migration check of one side of all graphs, store by store."""
    role: Role = "write" if side is WRITE else "graph"
    if side is not ENGINE:
        # A graph of a stored map has tables of its own, which no migration makes.
        graphs = [graph for graph in graphs if map_options(graph.composition).map is None]
    by_store: dict[str | None, dict[str, str]] = {}
    for graph in graphs:
        key = graph.write_store if role == "write" else graph.graph_store
        schema = graph.source_schema if role == "write" else graph.schema_name
        by_store.setdefault(key, {})[schema] = graph.slug
    behind: list[str] = []
    for key, slugs in by_store.items():
        late = await schemas_behind(services.store(role, key), side, slugs)
        behind += [slugs[schema] for schema in late]
    name = f"{side.name} migrations"
    if not behind:
        return [Check(name=name, found=f"{counted(len(graphs), 'graph')} up to date")]
    named = listed(sorted(behind), most=_MOST_NAMED)
    return [
        Check(
            name=name,
            status=CheckStatus.FAIL,
            found=f"{len(behind):,} of {counted(len(graphs), 'graph')} behind: {named}",
            fix=_MIGRATE,
        )
    ]


def _fleet(workers: Sequence[WorkerRecord]) -> Sequence[Check]:
    """Return the checks of all workers: different releases, plugins that were not registered."""
    if not workers:
        return [
            Check(
                name="workers",
                status=CheckStatus.WARN,
                found="none is registered in the control plane",
                fix=f"{_MIGRATE} Workers register within half a minute.",
            )
        ]
    releases = sorted({worker.syncline_version for worker in workers})
    found = f"{len(workers)} registered in the control plane, Syncline {', '.join(releases)}"
    versions = sorted({worker.deployment_version for worker in workers if worker.deployment_version})
    if versions:
        found += f"; deployed as {', '.join(versions)}"
    mixed = len(releases) > 1
    checks = [
        Check(
            name="workers",
            status=CheckStatus.WARN if mixed else CheckStatus.OK,
            found=found,
            fix="Finish the deployment: every worker should have the same release." if mixed else None,
        )
    ]
    checks += [
        Check(
            name=f"worker {worker.identity}",
            status=CheckStatus.WARN,
            found=f"it cannot use a store that other workers may be able to use. {problem}",
            fix="Correct that setting of this worker and restart it; other workers run its graphs meanwhile.",
        )
        for worker in workers
        for problem in worker.unusable
    ]
    problems = sorted({problem for worker in workers for problem in worker.problems})
    fix = "Fix or uninstall that distribution in the workers, then restart them."
    return [
        *checks,
        *(Check(name="plugins", status=CheckStatus.WARN, found=problem, fix=fix) for problem in problems),
    ]
