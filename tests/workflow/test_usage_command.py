"""What embeddings used, as an operator asks for it."""

from typing import Any

from syncline.control.graphs import Graph
from syncline.testing.lab import SyncLab
from tests.kit.command_line import CommandLine


async def embed(lab: SyncLab, graph: Graph, first: int, number: int) -> None:
    async with lab.services.store("write", None).driver() as connection:
        await connection.execute(
            f"INSERT INTO {graph.schema_name}.write_facts (id, content, dedup_status)"
            " SELECT 'f' || i, 'twelve bytes ' || i, 'ready' FROM generate_series($1::int, $2::int) i",
            first,
            first + number - 1,
        )


async def test_usage_is_listed_by_month_and_run_and_a_spent_budget_is_said(
    lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await lab.add_graph("default", prepare=True)
    # Only runs by hand: a change of the record would start one of the Schedule's.
    assert (await syncline("graph", "pause", graph.slug)).status == 0
    empty = await syncline("usage", graph.slug)
    assert (empty.status, empty.out.strip()) == (0, "nothing was embedded")
    await embed(lab, graph, 1, 3)
    first = (await lab.run(graph)).result
    assert first is not None
    assert first.embedding is not None
    assert (first.embedding.texts, first.embedding.requests) == (3, 1)
    assert first.embedding.today == first.embedding.tokens == first.embedding.estimated
    said = await syncline("graph", "set", graph.slug, "--tokens-per-day", "4")
    assert said.status == 0, said.err
    assert "at most 4 tokens a day" in said.out
    await embed(lab, graph, 4, 2)
    second = (await lab.run(graph)).result
    assert second is not None
    assert second.vectors.budget_spent
    assert second.embedding is None
    report: Any = await syncline.answer("usage", graph.slug)
    [month], [run] = report["months"], report["runs"]
    assert (month["texts"], month["tokens"], run["tokens"]) == (3, first.embedding.tokens, month["tokens"])
    assert report["budgets"] == [
        {"scope": "graph", "name": graph.slug, "budget": 4, "used": month["tokens"], "held": 0}
    ]
    printed = await syncline("usage", graph.slug, "--month", month["month"])
    assert "budget of" in printed.out
    assert (await syncline("usage", "--month", "last")).status == 2
    status = await syncline("status", graph.slug)
    assert f"graph '{graph.slug}' has used" in status.out
    said = await syncline("graph", "set", graph.slug, "--tokens-per-day", "0")
    assert [line.split()[1] for line in said.out.splitlines() if line.startswith("vectors")] == ["-"]
