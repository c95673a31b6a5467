"""The walk of docs/takeover.md, block by block, on a target that another engine filled."""

import re
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.service import RPCError

from providers import BUILTIN
from syncline import names
from syncline.testing.lab import SyncLab
from tests.kit.command_line import CommandLine
from tests.kit.databases import execute, rows

PAGE = (Path(__file__).parents[2] / "docs" / "takeover.md").read_text(encoding="utf-8")
WALK = PAGE.partition("## A walk")[2].partition("\n## ")[0]
_KEPT = "SELECT key, id::text, xmin::text, reads FROM shop.items WHERE maker_nr < 100 ORDER BY key"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", WALK, re.MULTILINE | re.DOTALL)


@pytest_asyncio.fixture(loop_scope="session")
async def shop(lab: SyncLab) -> AsyncIterator[SyncLab]:
    lab.services.registry.load(BUILTIN, entry_points=False)
    settings = lab.services.settings
    for script in blocks("sql"):
        await execute(settings.write_dsn if script.startswith("-- write-db") else settings.graph_dsn, script)
    yield lab
    with suppress(RPCError):
        await lab.client.get_schedule_handle(names.sync_schedule_id("shop")).delete()


@pytest.fixture
def at_home(shop: SyncLab, with_stores: Callable[[SyncLab], CommandLine], tmp_path: Path) -> CommandLine:
    (tmp_path / "shop.yaml").write_text(blocks("yaml")[0])
    return with_stores(shop)


def steps() -> list[tuple[list[str], int]]:
    """The commands of the walk, with the status that the page gives them."""
    found = []
    for line in "".join(blocks("sh")).splitlines():
        command, _, comment = line.partition("  #")
        status = re.search(r"exit status (\d)", comment)
        found.append((shlex.split(command)[1:], int(status[1]) if status else 0))
    return found


async def test_the_walk_of_the_page(shop: SyncLab, at_home: CommandLine) -> None:
    graph_dsn = shop.services.settings.graph_dsn
    before = {key: rest for key, *rest in await rows(graph_dsn, _KEPT)}
    for words, status in steps():
        said = await at_home(*words)
        assert said.status == status, (words, said.out, said.err)
        if words[-1] == "--dry-run":
            assert "makers (rows), stale: 19, 20" in said.out or "makers (rows), stale: 20, 19" in said.out
            assert "1 row that the write-db does not have stays" in said.out
            assert {key: rest for key, *rest in await rows(graph_dsn, _KEPT)} == before
        elif words[:2] == ["graph", "takeover"]:
            assert "equal but for 1 extra" in said.out
    after = {key: rest for key, *rest in await rows(graph_dsn, _KEPT)}
    assert len(after) == 100
    # Ids and what readers counted stay everywhere; of the 50 rows those with the right maker are untouched.
    assert {key: (row[0], row[2]) for key, row in after.items() if key in before} == {
        key: (row[0], row[2]) for key, row in before.items()
    }
    untouched = [key for key, row in before.items() if after[key] == row]
    assert untouched == sorted(f"i{n}" for n in range(1, 51) if n % 40 == n % 20)
    audit: Any = await at_home.answer("graph audit", "shop")
    assert "take-over" in [entry["action"] for entry in audit["entries"]]


@pytest.mark.long("test_the_walk_of_the_page")
async def test_rows_under_other_ids_and_extras_without_a_yes_are_refused(
    shop: SyncLab, at_home: CommandLine
) -> None:
    graph_dsn = shop.services.settings.graph_dsn
    for words, _ in steps()[:4]:
        assert (await at_home(*words)).status == 0
    await execute(
        graph_dsn, "INSERT INTO shop.tags VALUES ('00000000-0000-0000-0000-000000000003', 't9', 'Tag 9')"
    )
    checked = await at_home("map", "check", "shop.yaml", "--graph", "shop")
    assert checked.status == 1
    assert "shop.yaml:13" in checked.out
    assert "under another id" in checked.out
    dry = await at_home("graph", "takeover", "shop", "--dry-run")
    assert dry.status == 5
    assert "tags: 1 under another id than the map's: t9 (id 00000000-0000-0000-0000-000000000003)" in dry.out
    refused = await at_home("graph", "takeover", "shop")
    assert refused.status == 1
    assert "1 row would be doubled" in refused.err
    answer: Any = await at_home.answer("graph takeover", "shop", "--dry-run", status=5)
    assert answer["takeover"]["strange"][0]["table"] == "tags"
    await execute(graph_dsn, "DELETE FROM shop.tags WHERE key = 't9'")
    unasked = await at_home("graph", "takeover", "shop", "--delete-extra")
    assert unasked.status == 2
    assert "--delete-extra deletes 1 row, 0 links and 0 points: give --yes too" in unasked.err
    done = await at_home("graph", "takeover", "shop", "--delete-extra", "--yes")
    assert (done.status, done.out.splitlines()[-1]) == (0, "Taken over; equal."), done.err
    again = await at_home("graph", "takeover", "shop")
    assert again.status == 2
    assert "syncline verify shop" in again.err
