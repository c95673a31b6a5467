"""examples/graph_product: a read store that another engine filled is taken over, and synced from then on.

The commands are those of its README; owner, worker and reader have the rights that are printed for them.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.test_shop_example import Site, as_role, batched, execute, rows, site

__all__ = ["site"]

PRODUCT = Path(__file__).parents[2] / "examples" / "graph_product"
THEIRS = "(n.id, f.id) <> (md5('node 1')::uuid, md5('fact 29')::uuid)"
IDS = {
    table: f"SELECT {what} FROM {table}"
    for table, what in {
        "raw_sources": "id, uri",
        "facts": "id, access_count",
        "nodes": "id, concept, access_count",
        "edges": "id, source_node_id, target_node_id, relationship_type",
        "fact_sources": "id, fact_id, raw_source_id",
        "convergence_reports": "id, node_id",
        "llm_usage": "id, spent_on",
    }.items()
}
READY = "write_facts f WHERE f.dedup_status = 'ready' AND f.deleted_at IS NULL"
SAME = (
    (
        "SELECT id, uri, title, content_hash, state::text, provider_metadata->>'lang', created_at FROM write_raw_sources",
        "SELECT id, uri, title, content_hash, state::text, language, created_at FROM raw_sources WHERE created_at IS NOT NULL",
    ),
    (
        f"SELECT id, content, fact_type, created_at FROM {READY}",
        "SELECT id, content, fact_type, created_at FROM facts WHERE content <> 'Gone'",
    ),
    (
        (
            "SELECT n.node_uuid, n.concept, n.node_type, p.node_uuid, n.definition, n.created_at, r.convergence_score"
            " FROM write_nodes n LEFT JOIN write_nodes p ON p.key = n.parent_key"
            " LEFT JOIN write_convergence_reports r ON r.node_key = n.key"
        ),
        "SELECT id, concept, node_type, parent_id, definition, created_at, convergence_score FROM nodes",
    ),
    (
        f"SELECT DISTINCT n.node_uuid, f.id FROM write_nodes n, unnest(n.fact_ids) m JOIN {READY}".replace(
            " WHERE", " ON f.id = m::uuid WHERE"
        )
        + " AND NOT EXISTS (SELECT FROM write_node_fact_rejections r WHERE (r.node_key, r.fact_id) = (n.key, f.id))"
        f" AND {THEIRS.replace('n.id', 'n.node_uuid')}",
        f"SELECT n.id, f.id FROM node_facts JOIN nodes n ON n.id = node_id JOIN facts f ON f.id = fact_id WHERE {THEIRS}",
    ),
    (
        (
            "SELECT s.node_uuid, t.node_uuid, e.relationship_type, e.weight FROM write_edges e"
            " JOIN write_nodes s ON s.key = source_node_key JOIN write_nodes t ON t.key = target_node_key"
        ),
        "SELECT source_node_id, target_node_id, relationship_type, weight FROM edges",
    ),
    (
        (
            "SELECT p.id, fact_id, coalesce(s.id::text, 'stub'), coalesce(s.uri, source_uri), content_hash, context_snippet"
            " FROM write_provenance p LEFT JOIN write_raw_sources s USING (content_hash)"
            f" WHERE fact_id IN (SELECT f.id FROM {READY})"
        ),
        (
            "SELECT p.id, fact_id, CASE WHEN s.created_at IS NULL THEN 'stub' ELSE s.id::text END, uri, content_hash, context_snippet"
            " FROM fact_sources p JOIN raw_sources s ON s.id = raw_source_id"
        ),
    ),
    (
        (
            "SELECT c.id, c.claim, r.summary FROM write_convergence_claims c JOIN write_convergence_reports r USING (node_key)"
            " JOIN write_nodes n ON n.key = c.node_key"
        ),
        "SELECT c.id, c.claim, r.summary FROM convergence_claims c JOIN convergence_reports r ON r.id = report_id",
    ),
    (
        "SELECT model, tokens, spent_on, CASE WHEN length(source) = 32 THEN source::uuid END FROM write_llm_usage",
        "SELECT model, tokens, spent_on, source_id FROM llm_usage",
    ),
)
COUNTED = """
SELECT n.concept FROM nodes n WHERE (n.fact_count, n.edge_count, n.child_count) IS DISTINCT FROM (
    (SELECT count(*) FROM node_facts l WHERE l.node_id = n.id),
    (SELECT count(*) FROM edges e WHERE n.id IN (e.source_node_id, e.target_node_id)),
    (SELECT count(*) FROM nodes c WHERE c.parent_id = n.id))
UNION ALL
SELECT s.title FROM raw_sources s
WHERE s.fact_count <> (SELECT count(*) FROM fact_sources p WHERE p.raw_source_id = s.id)
"""
STUBS = "SELECT uri FROM raw_sources WHERE created_at IS NULL ORDER BY uri"
USAGE = """
SELECT id::text FROM llm_usage
WHERE id NOT IN ('3f2504e0-4f89-11d3-9a0c-0305e82c3301', 'e7abca72-53e1-53ce-8e76-3f6550d6dc16',
                 '00000000-0000-0000-0000-000000000000')
"""
CHANGES = (
    """
    UPDATE write_facts SET content = 'New words' WHERE id = md5('fact 5')::uuid;
    UPDATE write_facts SET dedup_status = 'ready' WHERE id = md5('fact 10')::uuid;
    UPDATE write_facts SET deleted_at = now() WHERE id = md5('fact 3')::uuid;
    DELETE FROM write_facts WHERE id = md5('fact 4')::uuid;
    UPDATE write_nodes SET parent_key = 'concept:30', definition = NULL WHERE key = 'concept:2';
    UPDATE write_nodes SET fact_ids = fact_ids || md5('fact 29')::uuid::text::varchar WHERE key = 'concept:1';
    UPDATE write_nodes SET fact_ids = fact_ids[2:2] WHERE key = 'concept:7';
    DELETE FROM write_nodes WHERE key = 'concept:6';
    DELETE FROM write_node_fact_rejections WHERE node_key = 'concept:13';
    INSERT INTO write_node_fact_rejections VALUES ('concept:8', md5('fact 8')::uuid);
    UPDATE write_edges SET weight = 9 WHERE source_node_key = 'concept:9';
    DELETE FROM write_edges WHERE source_node_key = 'concept:10';
    UPDATE write_convergence_reports SET convergence_score = 0.75, summary = 'Again' WHERE node_key = 'concept:9';
    DELETE FROM write_convergence_reports WHERE node_key = 'concept:12';
    UPDATE write_convergence_claims SET claim = 'Better' WHERE node_key = 'concept:15';
    UPDATE write_llm_usage SET tokens = 81, source = md5('source 3') WHERE id = 'run/7';
    INSERT INTO write_nodes VALUES
        ('late', md5('late')::uuid, 'Late', 'concept', 'later', ARRAY[md5('fact 61')::uuid::text], NULL, '2026-06-01');
    """,
    """
    INSERT INTO write_raw_sources
    SELECT md5('source ' || n)::uuid, 'https://example.org/' || n, 'Source ' || n, md5('content ' || n), 'fetched', '{}', '2026-06-01'
    FROM generate_series(13, 14) n;
    INSERT INTO write_facts VALUES (md5('fact 61')::uuid, 'Late fact', NULL, 'ready', NULL, '2026-06-01');
    INSERT INTO write_nodes VALUES ('later', md5('later')::uuid, 'Later', 'concept', NULL, '{}', NULL, '2026-06-01');
    INSERT INTO write_nodes VALUES ('concept:6', md5('node 6')::uuid, 'Back', 'concept', 'late', '{}', NULL, '2026-06-01');
    UPDATE write_nodes SET fact_ids = fact_ids[1:3] WHERE key = 'concept:1';
    DELETE FROM write_llm_usage WHERE id = '';
    """,
)
TWICE = """
INSERT INTO write_provenance VALUES (md5('twice')::uuid, md5('fact 1')::uuid, md5('content 2'), 'again', 'again');
INSERT INTO write_llm_usage VALUES ('3f2504e0-4f89-11d3-9a0c-0305e82c3301', 'large', 1, '2026-04-09');
"""
ONCE = """
DELETE FROM write_provenance WHERE id = md5('provenance 1')::uuid;
DELETE FROM write_llm_usage WHERE id = '3F2504E0-4F89-11D3-9A0C-0305E82C3301';
"""


async def as_written(site: Site, block: str) -> None:
    """Follow a block of the README as somebody who reads what is said."""
    for line in block.splitlines():
        written, _, comment = line.partition("  #")
        status = re.search(r"exit status (\d)", comment)
        program, *arguments = shlex.split(written)
        if program == "psql":
            dsn = site.write if arguments.pop(0) == "$WRITE_DB" else site.graph
            scripts = [
                what if option == "-c" else (PRODUCT / what).read_text()
                for option, what in batched(arguments)
            ]
            await execute(as_role(dsn, site.owner), ";\n".join(scripts))
        elif arguments[0] == "grants":
            await site.grant(arguments[1])
        else:
            said = await site.command(*arguments)
            assert said.status == (int(status[1]) if status else 0), (arguments, said.out, said.err)


async def equal(site: Site) -> None:
    """The reader sees what is in the write-db, and `verify` says so too."""
    for there, here in SAME:
        expected, found = await rows(site.write, there), await site.copied(here)
        assert sorted(map(repr, expected)) == sorted(map(repr, found)), here
    assert await site.copied(COUNTED) == []
    assert await site.copied(USAGE) == []
    verified: Any = await site.command.answer("verify", "product", status=1)
    assert verified["not_compared"] == []
    wrong = {
        (one["name"], one["kind"]): [(find["verdict"], find["count"]) for find in one["found"]]
        for one in verified["relations"]
        if one.get("damaged")
    }
    assert wrong == {}, wrong


async def kept(site: Site) -> dict[str, set[tuple[object, ...]]]:
    return {table: set(await rows(site.graph, sql)) for table, sql in IDS.items()}


def blocks() -> tuple[str, str, str]:
    """Return the README's commands: until the store is filled, the takeover, the second graph."""
    first, second = re.findall(r"```sh\n(.*?)```", (PRODUCT / "README.md").read_text(), re.DOTALL)
    filled, taken = first.split("syncline graph adopt")
    return filled, f"syncline graph adopt{taken}", second


async def taken_over(site: Site, folder: Path) -> str:
    """Fill the store and take it over as the README has it: ids are kept. Return the commands that follow."""
    for file in PRODUCT.iterdir():
        (folder / file.name).write_text(file.read_text())
    filled, taken, second = blocks()
    await as_written(site, filled)
    before = await kept(site)
    await as_written(site, taken)
    after = await kept(site)
    assert {table: before[table] - after[table] for table in before} == {table: set() for table in before}
    await equal(site)
    return second


@pytest.mark.long("workflow/test_takeover.py::test_the_walk_of_the_page")
async def test_a_graph_product_is_taken_over(site: Site, tmp_path: Path) -> None:
    second = await taken_over(site, tmp_path)
    assert await site.copied(STUBS) == [("https://example.org/13",), ("https://example.org/14",)]
    for change in CHANGES:
        await site.write_as_owner(change)
        await site.run("sync", "product")
        await equal(site)
    assert await site.copied(STUBS) == []
    await site.write_as_owner(TWICE)
    await site.run("sync", "product")
    failures: Any = await site.command.answer("failures list", "product")
    assert {one["table"] for one in failures["letters"]} == {"fact_sources", "llm_usage"}, failures
    await site.write_as_owner(ONCE)
    await site.run("sync", "product")
    await equal(site)
    [link] = await site.copied(
        f"SELECT relevance FROM node_facts, nodes n, facts f WHERE (n.id, f.id) = (node_id, fact_id) AND NOT {THEIRS}"
    )
    assert link == (0.9,)
    assert await site.copied("SELECT access_count FROM nodes WHERE concept = 'Concept 2'") == [(2,)]
    await as_written(site, second)
