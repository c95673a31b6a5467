"""Asks a worker for what the state tables of graphs say: one small run per page of graphs."""

from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

from temporalio.client import Client

from syncline import names
from syncline.errors import ConfigurationError, NoWorker, RunFailed, TemporalUnavailable
from syncline.operator.graph_state import GraphNumbers, GraphNumbersPage, GraphNumbersRequest
from syncline.temporal.run import execute_and_wait

__all__ = ["AnsweredNumbers", "ask_numbers"]

_MOST_PAGES: Final = 80
_SHARE: Final = 0.6
_LONGEST: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class AnsweredNumbers:
    """The answer of a worker, or why there is none."""

    graphs: dict[str, GraphNumbers] = field(default_factory=dict)
    problem: str | None = None
    """Why no worker answered, in a sentence; the graphs that are missing were not asked."""
    no_worker: bool = False
    """Whether no worker polls the task queue."""
    unknown: bool = False
    """Whether one graph was asked for, and none has that slug."""


async def ask_numbers(
    client: Client, task_queue: str, *, seconds: float, graph: str | None = None
) -> AnsweredNumbers:
    """Return the numbers of all graphs of this control plane, or of one. Raises nothing but cancellation."""
    found: dict[str, GraphNumbers] = {}
    # Of these seconds the stores have the larger part, so that one that hangs does not cost the whole answer.
    request = GraphNumbersRequest(graph=graph, seconds=min(_SHARE * seconds, _LONGEST))
    try:
        for _ in range(_MOST_PAGES):
            page = await execute_and_wait(
                client,
                names.DESCRIBE_GRAPHS,
                GraphNumbersPage,
                request,
                workflow_id=f"describe-graphs/{uuid4().hex[:8]}",
                task_queue=task_queue,
                seconds=seconds,
                summary="Look at what waits and what was refused",
            )
            found |= {numbers.graph: numbers for numbers in page.graphs}
            if page.next is None:
                break
            request = request.model_copy(update={"after": page.next})
    except NoWorker as error:
        return AnsweredNumbers(problem=error.problem, no_worker=True)
    except ConfigurationError as error:
        return AnsweredNumbers(problem=str(error), unknown=graph is not None)
    except (RunFailed, TemporalUnavailable) as error:
        return AnsweredNumbers(graphs=found, problem=str(error))
    return AnsweredNumbers(graphs=found)
