"""Making the stores and the Schedules what `temporal-dev.yaml` declares. Everything here is idempotent."""

from collections.abc import Callable, Sequence

from temporalio.client import Client, ScheduleOverlapPolicy

from syncline import names
from syncline.devstack.declaration import GraphDeclaration, StackDeclaration
from syncline.errors import DevStackError, GraphNotFound
from syncline.graphs import Graph, GraphDraft, GraphRepository, ScheduleSpec
from syncline.samples import load_sample, open_sample
from syncline.schedules import ensure_schedule
from syncline.services import Services
from syncline.settings import Settings

__all__ = ["prepare_graphs", "schedule_graphs"]


async def prepare_graphs(
    declaration: StackDeclaration, settings: Settings, *, say: Callable[[str], None]
) -> list[Graph]:
    """Migrate the stores, create the declared graphs, load their samples; return the graphs."""
    graphs = []
    async with Services.open(settings) as services:
        await services.prepare_control()
        for slug, declared in declaration.graphs.items():
            graph = await _ensure_graph(services.graphs, slug, declared, declaration, say)
            await services.prepare_graph(graph)
            if declared.sample is not None:
                target = services.write_schema(graph)
                changed = await load_sample(target.store, target.schema, open_sample(declared.sample))
                say(f"Graph {slug}: sample {declared.sample}, {sum(changed.values()):,} rows written.")
            graphs.append(graph)
    return graphs


async def schedule_graphs(client: Client, graphs: Sequence[Graph], *, task_queue: str) -> None:
    """Give every graph its Schedule and start a run at once.

    A run that an earlier start left open goes first: the one started here is buffered behind it.
    """
    for graph in graphs:
        await ensure_schedule(client, graph, task_queue=task_queue)
        handle = client.get_schedule_handle(names.sync_schedule_id(graph.slug))
        await handle.trigger(overlap=ScheduleOverlapPolicy.BUFFER_ONE)
