"""What writers and readers of examples/graph_product do, at random: often what leads to a conflict."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Final

__all__ = ["ODDITIES", "PEACE", "READERS_ROWS", "START", "late_rows", "of_a_reader", "of_a_writer"]

NODES, FACTS, SOURCES = 6, 7, 4

ODDITIES: Final = """
CREATE TABLE history_left (id uuid);
CREATE FUNCTION leave_facts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO history_left VALUES (OLD.id); RETURN NULL; END $$;
CREATE TRIGGER leave AFTER DELETE OR UPDATE OF id, dedup_status, deleted_at ON write_facts
    FOR EACH ROW EXECUTE FUNCTION leave_facts();
CREATE FUNCTION leave_nodes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO history_left VALUES (OLD.node_uuid), (NEW.node_uuid); RETURN NULL; END $$;
CREATE TRIGGER leave AFTER INSERT OR DELETE OR UPDATE OF key, node_uuid ON write_nodes
    FOR EACH ROW EXECUTE FUNCTION leave_nodes();
"""
"""In the write-db: keeps which rows may have left the target, so that what others hung on them may be gone."""

PEACE: Final = """
UPDATE write_facts SET content = 'Fact' WHERE content = 'bad';
UPDATE write_nodes SET concept = 'Concept' WHERE concept = 'bad';
UPDATE write_raw_sources s SET content_hash = id::text WHERE EXISTS (
    SELECT FROM write_raw_sources o WHERE o.content_hash = s.content_hash AND o.id < s.id);
DELETE FROM write_provenance p USING write_provenance o
WHERE (o.fact_id, o.content_hash) = (p.fact_id, p.content_hash) AND o.id < p.id;
DELETE FROM write_edges p USING write_edges o
WHERE (o.source_node_key, o.target_node_key, o.relationship_type) = (p.source_node_key, p.target_node_key, p.relationship_type)
    AND o.key < p.key;
DELETE FROM write_llm_usage p USING write_llm_usage o WHERE lower(o.id) = lower(p.id) AND o.id < p.id;
UPDATE write_llm_usage SET model = 'm' WHERE model = 'bad';
UPDATE write_nodes SET fact_ids = array_remove(fact_ids, 'no uuid');
UPDATE write_edges SET fact_ids = array_remove(fact_ids, 'no uuid');
"""
"""Ends the conflicts: then every row lands."""

START: Final = f"""
INSERT INTO write_facts
SELECT md5('fact ' || n)::uuid, 'Fact', 'claim', 'ready', NULL, '2026-04-01' FROM generate_series(0, {FACTS - 1}) n;
INSERT INTO write_raw_sources
SELECT md5('source ' || n)::uuid, 'https://x', NULL, 'hash ' || n, 'queued', '{{}}', '2026-03-29' FROM generate_series(0, {SOURCES - 1}) n
"""
"""For those who collect sources: they change these, so that what refers to them has stubs."""

READERS_ROWS: Final = 2
_USAGE: Final = (
    "3F2504E0-4F89-11D3-9A0C-0305E82C3301",
    "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
    "run/1",
    "run/2",
    "",
)


def node(n: int) -> str:
    return f"concept:{n}"


def uuid_of(word: str, n: int) -> str:
    return f"md5('{word} {n}')::uuid"


class _Dice:
    """Rows of the product at random."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def n(self, below: int) -> int:
        return self.random.randrange(below)

    def key(self) -> str:
        return node(self.n(NODES))

    def fact(self) -> str:
        return uuid_of("fact", self.n(FACTS))

    def text_of_source(self) -> str:
        """Return a text that names a source, now and then nothing that could be one."""
        named = self.random.choice([uuid_of("source", self.n(SOURCES)), uuid_of("late", 1)])
        return self.random.choice([f"{named}::text", f"upper({named}::text)", "'chat'", "''", "NULL"])

    def facts(self) -> str:
        """Return an array of uuids as their writers spell them: also twice, none, and of no uuid at all."""
        spelled = [
            self.random.choice(["{}::text", "{}::text", "upper({}::text)"]).format(self.fact())
            for _ in range(self.n(4))
        ]
        odd = self.random.choice([[], [], [], [], ["NULL"], ["NULL"], ["'no uuid'"]])
        return f"ARRAY[{', '.join([*spelled, *odd])}]::varchar[]"

    def word(self, good: str) -> str:
        return "bad" if self.random.random() < 0.08 else f"{good} {self.n(3)}"

    def or_null(self, value: str, share: float = 0.3) -> str:
        return "NULL" if self.random.random() < share else value

    def uuid_of_node(self) -> str:
        """Return the uuid of a node, now and then one that a reader's row has."""
        if self.random.random() < 0.1:
            return uuid_of("theirs", self.n(READERS_ROWS))
        return uuid_of("node", self.n(NODES + 2))


def _source(d: _Dice) -> str:
    number = d.n(SOURCES)
    hashed = number if d.random.random() < 0.8 else d.n(SOURCES)
    return (
        f"INSERT INTO write_raw_sources VALUES ({uuid_of('source', number)}, 'https://x/{d.n(3)}', 'Title {d.n(3)}',"
        f" 'hash {hashed}', '{d.random.choice(['queued', 'fetched', 'failed'])}',"
        f""" '{d.random.choice(["{}", '{"lang": "en"}', '{"lang": null}'])}', '2026-03-29 02:30')"""
        " ON CONFLICT (id) DO UPDATE SET title = excluded.title, content_hash = excluded.content_hash,"
        " state = excluded.state, provider_metadata = excluded.provider_metadata"
    )


def _hash_moved(d: _Dice) -> str:
    """Another source is found by a content hash: it gets one that is free, or two exchange theirs."""
    one, other = uuid_of("source", d.n(SOURCES)), uuid_of("source", d.n(SOURCES))
    if d.random.random() < 0.3:
        return (
            "UPDATE write_raw_sources s SET content_hash = o.content_hash FROM write_raw_sources o"
            f" WHERE (s.id, o.id) IN (({one}, {other}), ({other}, {one}))"
        )
    free = f"hash {d.n(SOURCES + 3)}"
    return (
        f"UPDATE write_raw_sources SET content_hash = '{free}' WHERE id = {one}"
        f" AND NOT EXISTS (SELECT FROM write_raw_sources WHERE content_hash = '{free}')"
    )


def _source_gone(d: _Dice) -> str:
    """Also with its key, under which another row has its hash then."""
    one, other = uuid_of("source", d.n(SOURCES)), uuid_of("source", d.n(SOURCES))
    if d.random.random() < 0.3:
        return (
            f"UPDATE write_raw_sources SET id = {one} WHERE id = {other}"
            f" AND NOT EXISTS (SELECT FROM write_raw_sources WHERE id = {one})"
        )
    return f"DELETE FROM write_raw_sources WHERE id = {one}"


def _fact(d: _Dice) -> str:
    kind = d.or_null("'claim'")
    status = d.random.choice(["ready"] * 5 + ["pending"])
    return (
        f"INSERT INTO write_facts VALUES ({d.fact()}, '{d.word('Fact')}', {kind}, '{status}', NULL, '2026-04-01')"
        " ON CONFLICT (id) DO UPDATE SET content = excluded.content, fact_type = excluded.fact_type,"
        " dedup_status = excluded.dedup_status"
    )


def _node(d: _Dice) -> str:
    key, made = d.key(), d.uuid_of_node()
    return (
        "INSERT INTO write_nodes (key, node_uuid, concept, node_type, parent_key, fact_ids, definition, created_at)"
        f" SELECT '{key}', {made}, '{d.word('Concept')}', 'concept', {d.or_null(repr(d.key()))}, {d.facts()},"
        f" {d.or_null(repr('About'))}, timestamp '2026-04-02'"
        f" WHERE NOT EXISTS (SELECT FROM write_nodes WHERE node_uuid = {made} AND key <> '{key}')"
        " ON CONFLICT (key) DO UPDATE SET concept = excluded.concept, parent_key = excluded.parent_key,"
        " fact_ids = excluded.fact_ids, definition = excluded.definition"
    )


def _relinked(d: _Dice) -> str:
    return f"UPDATE write_{d.random.choice(['nodes', 'edges'])} SET fact_ids = {d.facts()} WHERE key ~ '{d.n(NODES)}'"


def _other_uuid(d: _Dice) -> str:
    made = d.uuid_of_node()
    return (
        f"UPDATE write_nodes SET node_uuid = {made} WHERE key = '{d.key()}'"
        f" AND NOT EXISTS (SELECT FROM write_nodes WHERE node_uuid = {made})"
    )


def _uuids_exchanged(d: _Dice) -> str:
    one, other = d.key(), d.key()
    pair = f"('{one}', '{other}')"
    return (
        f"CREATE TEMP TABLE swap AS SELECT key, node_uuid FROM write_nodes WHERE key IN {pair};"
        f"UPDATE write_nodes SET node_uuid = gen_random_uuid() WHERE key IN {pair};"
        "UPDATE write_nodes n SET node_uuid = s.node_uuid FROM swap s"
        f" WHERE n.key IN {pair} AND (n.key <> s.key OR (SELECT count(*) FROM swap) = 1); DROP TABLE swap"
    )


def _moved_node(d: _Dice) -> str:
    key = d.key()
    return (
        f"UPDATE write_nodes SET key = '{key}' WHERE key = '{d.key()}'"
        f" AND NOT EXISTS (SELECT FROM write_nodes WHERE key = '{key}')"
    )


def _gone(d: _Dice) -> str:
    key, fact = d.key(), d.fact()
    return d.random.choice(
        [
            f"DELETE FROM write_nodes WHERE key = '{key}'",
            f"DELETE FROM write_nodes WHERE key = '{key}'",
            f"DELETE FROM write_facts WHERE id = {fact}",
            f"UPDATE write_facts SET deleted_at = CASE WHEN deleted_at IS NULL THEN now() END WHERE id = {fact}",
            f"UPDATE write_facts SET dedup_status = 'pending' WHERE id = {fact}",
            f"DELETE FROM write_raw_sources WHERE id = {uuid_of('source', d.n(SOURCES))}",
            f"DELETE FROM write_edges WHERE source_node_key = '{key}'",
            f"DELETE FROM write_convergence_reports WHERE node_key = '{key}'",
            f"DELETE FROM write_convergence_claims WHERE node_key = '{key}'",
            f"DELETE FROM write_provenance WHERE fact_id = {fact}",
            f"DELETE FROM write_llm_usage WHERE id = '{d.random.choice(_USAGE)}'",
        ]
    )


def _edge(d: _Dice) -> str:
    kind = d.random.choice(["related", "near"])
    return (
        f"INSERT INTO write_edges VALUES ('edge {d.n(6)}', '{d.key()}', '{d.key()}', '{kind}', {d.n(4)}, {d.facts()})"
        " ON CONFLICT (key) DO UPDATE SET source_node_key = excluded.source_node_key,"
        " target_node_key = excluded.target_node_key, relationship_type = excluded.relationship_type,"
        " weight = excluded.weight, fact_ids = excluded.fact_ids"
    )


def _edges_exchanged(d: _Dice) -> str:
    """What is unique at the target changes hands: both rows at once, or one after the other's key."""
    one, other = f"edge {d.n(6)}", f"edge {d.n(6)}"
    if d.random.random() < 0.4:
        return (
            f"UPDATE write_edges SET key = '{other}' WHERE key = '{one}'"
            f" AND NOT EXISTS (SELECT FROM write_edges WHERE key = '{other}')"
        )
    return (
        "UPDATE write_edges e SET source_node_key = o.source_node_key, target_node_key = o.target_node_key,"
        " relationship_type = o.relationship_type FROM write_edges o"
        f" WHERE (e.key, o.key) IN (('{one}', '{other}'), ('{other}', '{one}'))"
    )


def _rejection(d: _Dice) -> str:
    if d.random.random() < 0.4:
        return f"DELETE FROM write_node_fact_rejections WHERE node_key = '{d.key()}'"
    return f"INSERT INTO write_node_fact_rejections VALUES ('{d.key()}', {d.fact()}) ON CONFLICT DO NOTHING"


def _provenance(d: _Dice) -> str:
    fact, source = d.n(FACTS), d.n(SOURCES + 3)  # some that nobody writes, or a late transaction
    own = fact * 10 + source if d.random.random() < 0.6 else d.n(60)
    return (
        f"INSERT INTO write_provenance VALUES ({uuid_of('provenance', own)}, {uuid_of('fact', fact)}, 'hash {source}',"
        f" 'https://x/of/{source}', {d.or_null(repr('as in'))}) ON CONFLICT (id) DO UPDATE SET"
        " fact_id = excluded.fact_id, content_hash = excluded.content_hash, source_uri = excluded.source_uri,"
        " context_snippet = excluded.context_snippet"
    )


def _report(d: _Dice) -> str:
    if d.random.random() < 0.2:
        key = d.key()
        return (
            f"UPDATE write_convergence_reports SET node_key = '{key}' WHERE node_key = '{d.key()}'"
            f" AND NOT EXISTS (SELECT FROM write_convergence_reports WHERE node_key = '{key}')"
        )
    return (
        f"INSERT INTO write_convergence_reports VALUES ('{d.key()}', {d.n(4)} / 4.0, 'Report {d.n(3)}')"
        " ON CONFLICT (node_key) DO UPDATE SET convergence_score = excluded.convergence_score, summary = excluded.summary"
    )


def _claim(d: _Dice) -> str:
    return (
        f"INSERT INTO write_convergence_claims VALUES ({d.n(5)}, '{d.key()}', 'Claim {d.n(3)}')"
        " ON CONFLICT (id) DO UPDATE SET node_key = excluded.node_key, claim = excluded.claim"
    )


def _usage(d: _Dice) -> str:
    id_, other = d.random.choice(_USAGE), d.random.choice(_USAGE)
    if d.random.random() < 0.2:
        return (
            f"UPDATE write_llm_usage SET id = '{id_}' WHERE id = '{other}'"
            f" AND NOT EXISTS (SELECT FROM write_llm_usage WHERE id = '{id_}')"
        )
    return (
        f"INSERT INTO write_llm_usage VALUES ('{id_}', '{d.word('m')}', {d.n(9)}, '2026-04-01', {d.text_of_source()})"
        " ON CONFLICT (id) DO UPDATE SET model = excluded.model, tokens = excluded.tokens, source = excluded.source"
    )


_OF_WRITERS: Mapping[Callable[[_Dice], str], int] = {
    _node: 6, _fact: 5, _gone: 6, _edge: 4, _source: 2, _provenance: 3, _relinked: 3, _rejection: 2, _report: 2,
    _claim: 2, _usage: 2, _other_uuid: 2, _uuids_exchanged: 1, _moved_node: 2, _edges_exchanged: 2, _hash_moved: 1,
    _source_gone: 1,
}  # fmt: skip
_OF_COLLECTORS: Mapping[Callable[[_Dice], str], int] = {
    _source: 3, _fact: 2, _provenance: 8, _usage: 3, _hash_moved: 5, _source_gone: 3, _gone: 2, _node: 1,
}  # fmt: skip


def of_a_writer(random: Random, *, collects: bool = False) -> str:
    """Return one change of the tables; `collects`: mostly of sources, and of what refers to them."""
    kinds = _OF_COLLECTORS if collects else _OF_WRITERS
    [kind] = random.choices(list(kinds), weights=list(kinds.values()))
    return kind(_Dice(random))


def late_rows(number: int, random: Random) -> str:
    """Return inserts of rows that no other change writes, but to which others may refer."""
    d = _Dice(random)
    return (
        f"INSERT INTO write_facts VALUES ({uuid_of('late', number)}, 'Late', NULL, 'ready', NULL, '2026-04-01');"
        f"INSERT INTO write_raw_sources VALUES ({uuid_of('late', number)}, 'https://x/late', NULL, 'hash {SOURCES + number}',"
        " 'fetched', '{}', '2026-03-29 02:30');"
        f"INSERT INTO write_nodes VALUES ('late {number}', {uuid_of('late', number)}, 'Late', 'concept', '{d.key()}',"
        f" ARRAY[{uuid_of('late', number)}::text, {d.fact()}::text], NULL, '2026-04-02');"
        f"INSERT INTO write_edges VALUES ('late {number}', '{d.key()}', 'late {number}', 'late', 1, {d.facts()})"
    )


def of_a_reader(random: Random) -> tuple[str, str]:
    """Return a relation, and a statement of a reader's that returns the keys of the rows there that it wrote."""
    d = _Dice(random)
    one, other = uuid_of("node", d.n(NODES)), uuid_of("node", d.n(NODES))
    theirs = uuid_of("theirs", d.n(READERS_ROWS))
    pair = f"FROM nodes n, nodes m WHERE n.id = {one} AND m.id = {other}"
    return random.choice(
        [
            (
                "node_facts",
                (
                    f"INSERT INTO node_facts SELECT n.id, f.id, 0.77, now() FROM nodes n, facts f WHERE n.id IN ({one}, {theirs})"
                    f" AND f.id = {d.fact()} ON CONFLICT DO NOTHING RETURNING node_id, fact_id"
                ),
            ),
            ("nodes.access_count", f"UPDATE nodes SET access_count = 7 WHERE id = {one} RETURNING id"),
            ("facts.access_count", f"UPDATE facts SET access_count = 7 WHERE id = {d.fact()} RETURNING id"),
            (
                "nodes",
                (
                    f"INSERT INTO nodes (id, concept, node_type, access_count, created_at) VALUES ({theirs}, 'theirs', 't', 7, now())"
                    " ON CONFLICT DO NOTHING RETURNING id"
                ),
            ),
            (
                "edges",
                (
                    f"INSERT INTO edges SELECT gen_random_uuid(), n.id, m.id, '{random.choice(['theirs', 'related'])}', 7 {pair}"
                    " ON CONFLICT DO NOTHING RETURNING id"
                ),
            ),
            (
                "convergence_reports",
                (
                    f"INSERT INTO convergence_reports (node_id, convergence_score, summary) SELECT n.id, 7, 'theirs' {pair}"
                    " ON CONFLICT DO NOTHING RETURNING id"
                ),
            ),
            (
                "llm_usage",
                "INSERT INTO llm_usage VALUES (gen_random_uuid(), 'theirs', 7, now()) RETURNING id",
            ),
        ]
    )
