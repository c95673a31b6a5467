"""Making roles, stores and Schedules what `temporal-dev.yaml` declares. Everything here is idempotent.

Roles have what `syncline grants` prints, and nothing else: the stack shows least privilege at work.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from temporalio.client import Client, ScheduleOverlapPolicy

from syncline import names
from syncline.control.composition import swapped
from syncline.control.graphs import Graph, GraphChanges, GraphRepository
from syncline.control.services import Services
from syncline.devstack.declaration import GraphDeclaration, StackDeclaration
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.errors import DevStackError, GraphNotFound
from syncline.messages.base import GraphStatus
from syncline.quoting import counted
from syncline.rights.databases import Places, Roles, grants, places_of
from syncline.rights.needed import Place
from syncline.samples import holds_rows, load_sample, open_sample
from syncline.settings import Settings
from syncline.sql import quoted, statements_of, string_literal
from syncline.temporal.client import temporal_errors_mapped
from syncline.temporal.schedules.graph import ensure_schedule
from syncline.temporal.schedules.steer import start_run

__all__ = ["ROLES", "give_rights", "load_samples", "make_roles", "prepare_graphs", "schedule_graphs"]


async def prepare_graphs(
    declaration: StackDeclaration,
    settings: Settings,
    *,
    give: Callable[[Places], Awaitable[None]],
    say: Callable[[str], None],
) -> list[Graph]:
    """Migrate the stores and create the declared graphs; return these.

    `give` gives the roles their rights in schemas: before these are made, and once more when they are full.
    """
    schemas = [Place(schema=declared.draft(slug).place[0]) for slug, declared in declaration.graphs.items()]
    await give(Places(write={None: schemas}, graph={None: schemas}))
    graphs = []
    async with Services.open(settings) as services:
        await services.prepare_control()
        for slug, declared in declaration.graphs.items():
            graph = await _ensure_graph(services.graphs, slug, declared, say)
            await services.prepare_graph(graph)
            graphs.append(graph)
        # Those that were added by commands are among them.
        everywhere = places_of((await services.graphs.records()).valid)
        await give(Places(write={None: everywhere.write[None]}, graph={None: everywhere.graph[None]}))
    return graphs


async def load_samples(
    declaration: StackDeclaration, settings: Settings, graphs: Sequence[Graph], *, say: Callable[[str], None]
) -> None:
    """Load the samples of the graphs that declare one, as their writer does; once, so that edits stay."""
    async with Services.open(settings) as services:
        for graph in graphs:
            sample = declaration.graphs[graph.slug].sample
            if sample is not None:
                target = services.write_schema(graph)
                if await holds_rows(target.store, target.schema, open_sample(sample)):
                    again = f"`syncline sample {sample} --graph {graph.slug}` loads it again"
                    say(f"Graph {graph.slug}: sample {sample} is there already; {again}.")
                    continue
                changed = await load_sample(target.store, target.schema, open_sample(sample))
                say(f"Graph {graph.slug}: sample {sample}, {counted(sum(changed.values()), 'row')} written.")


async def _ensure_graph(
    repository: GraphRepository,
    slug: str,
    declared: GraphDeclaration,
    say: Callable[[str], None],
) -> Graph:
    """Return the graph's record, made to say what the file says."""
    draft = declared.draft(slug)
    try:
        graph = await repository.get(slug)
    except GraphNotFound:
        return await repository.add(draft)
    (schema, prefix), composition = draft.place, draft.composition
    if (schema, names.shadow_prefix(prefix)) == (graph.schema_name, graph.qdrant_prefix):
        # Its shadow was promoted: what the file says of the one is true of the other.
        prefix, composition = graph.qdrant_prefix, swapped(composition)
    if (schema, prefix) != (graph.schema_name, graph.qdrant_prefix):
        schema, prefix = graph.schema_name, graph.qdrant_prefix
        raise DevStackError(
            f"Graph '{slug}' lives in schema {schema} with Qdrant prefix {prefix} and cannot move. "
            "Give it these in temporal-dev.yaml, or start over with another --state-dir."
        )
    if (composition, draft.schedule) != (graph.composition, graph.schedule):
        say(f"Graph {slug}: its record now says what temporal-dev.yaml says.")
        changes = GraphChanges(composition=composition, schedule=draft.schedule)
        return await repository.update(slug, changes)
    return graph


async def schedule_graphs(client: Client, graphs: Sequence[Graph], *, task_queue: str) -> None:
    """Give every graph its Schedule and start a run of the active ones at once.

    A run that an earlier start left open goes first: the one started here is buffered behind it.
    """
    with temporal_errors_mapped(client):
        for graph in graphs:
            await ensure_schedule(client, graph, task_queue=task_queue)
            if graph.status is GraphStatus.ACTIVE:
                handle = client.get_schedule_handle(names.sync_schedule_id(graph.slug))
                await start_run(client, handle, ScheduleOverlapPolicy.BUFFER_ONE)


ROLES: Final = Roles(
    worker="syncline_worker",
    writer="syncline_writer",
    owner="syncline_owner",
    reader="syncline_reader",
    # `syncline graph add` is a worker's work.
    creates=True,
)

_sql = statements_of("syncline.devstack")


def make_roles(postgres: EmbeddedPostgres, *databases: str) -> None:
    """Make the roles that are missing; what earlier releases made as superuser becomes the owner's."""
    for role in (ROLES.worker, ROLES.writer, ROLES.owner, ROLES.reader):
        if role is not None:
            postgres.psql(_sql("role", name=quoted(role), text=string_literal(role)))
    for database in databases:
        postgres.psql(_sql("hand_over", owner=string_literal(ROLES.owner or "")), database)


def give_rights(postgres: EmbeddedPostgres, databases: Mapping[str, str], places: Places) -> None:
    """Run what `syncline grants` prints for these schemas; `databases` is write-db and graph-db by name."""
    for database in grants(ROLES, places):
        postgres.psql(database.sql, databases.get(database.name, databases["graph-db"]))
