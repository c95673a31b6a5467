"""Rules of a graph's vectors, as an operator gives and reads them."""

import json
from typing import Any

from syncline.testing.lab import SyncLab
from tests.kit.command_line import CommandLine


async def test_graph_add_takes_the_rules_of_vectors_that_graph_set_takes(
    lab: SyncLab, syncline: CommandLine
) -> None:
    slug = lab.unique("graph")
    rules = ("--tokens-per-day", "1000", "--collections", '{"vectors_on_disk": true}')
    said = await syncline("graph", "add", slug, "--no-schedule", *rules)
    assert said.status == 0, said.err
    record: Any = await syncline.answer("graph show", slug)
    assert record["vectors"]["tokens_per_day"] == 1000
    assert record["vectors"]["collections"]["vectors_on_disk"] is True
    [line] = [line for line in (await syncline("graph", "show", slug)).out.splitlines() if "vectors " in line]
    assert "1,000 tokens a day" in line
    assert "vectors_on_disk true" in line
    assert "null" not in line
    unlimited = await syncline("graph", "set", slug, "--tokens-per-day", "0", "--collections", "{}")
    [line] = [line for line in unlimited.out.splitlines() if line.startswith("vectors")]
    assert line.split() == ["vectors", "-"]
    refused = await syncline("graph", "add", f"{slug}-2", "--no-schedule", "--collections", "[")
    assert (refused.status, "--collections" in refused.err) == (2, True)
    wrong = await syncline("graph", "add", f"{slug}-2", "--collections", json.dumps({"hnsw": 1}))
    assert (wrong.status, "vectors.collections.hnsw" in wrong.err) == (2, True)
