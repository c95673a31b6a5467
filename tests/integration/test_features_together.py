"""Histories of maps that have several features at once: in the end the target is what the source says, by SQL of its own."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import pytest

from syncline.capture.install.install import adopt
from syncline.engine import SchemaMap, SyncEngine
from syncline.maps.document import read_map
from syncline.maps.one_tenant import of_tenant
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.migrations import migrate_bookkeeping
from syncline.provider import RetryRules
from syncline.testing.graphs import TestGraph, on_target, write
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph, made_by

KEYS = "abcde"
RULES = (
    "hash",
    "hash beside",
    "same",
    "column",
    "column beside",
    "assigned",
    "assigned beside",
    "uuid5",
    "expression beside",
)


@dataclass(frozen=True)
class Features:
    team: str = "hash"
    node: str = "hash"
    fact: str = "hash"
    ours: bool = False
    position: bool = False
    columns: bool = False
    rejected: bool = False
    counts: str = "none"
    into: bool = False
    tenant: bool = False
    vector: bool = False
    by: bool = False
    page: str = "key"

    @property
    def optional_team(self) -> bool:
        """Whether the team of a page may be missing: not of a key that is made of references."""
        return self.page != "key"

    @property
    def document(self) -> str:
        lines = ["version: 1", "name: together"]
        if self.tenant:
            lines.append("tenant: {column: tn, type: integer}")
        lines.append("tables:")
        lines += self._table("teams", "team", self.team)
        lines += ["    columns: {k: {source: id}, uri: text}"]
        if self.counts != "none":
            place = "" if self.counts == "row" else "table: team_stats, owner: team, "
            best = ", best: {counted: nodes, by: team_id, value: max(c.score)}" if self.into else ""
            lines += [f"    stats: {{{place}columns: {{members: {{counted: nodes, by: team_id}}{best}}}}}"]
        lines += self._table("facts", "fact", self.fact)
        lines += ["    columns: {k: {source: id}, title: text}"]
        lines += self._table("nodes", "node", self.node)
        lines += [
            "    present: NOT gone",
            "    columns: {k: {source: id}, title: {source: label}, size: {type: integer, source: {amount: text}}}",
        ]
        team = "{parent: teams, target: team_id, by: uri}" if self.by else "{parent: teams, target: team_id}"
        lines += [
            "    references:",
            f"      team: {team}",
            "      up: {parent: nodes, required: false, target: up_id}",
        ]
        more = ", columns: {weight: '1.5'}" if self.columns else ""
        more += ", position: place" if self.position else ""
        more += ", owned: ours" if self.ours else ""
        more += ", rejected_by: rejections" if self.rejected else ""
        lines += [
            f"    links: {{node_facts: {{source: facts, owner: node, member: fact, parent: facts{more}}}}}"
        ]
        if self.counts != "none":
            place = "" if self.counts == "row" else "table: node_stats, owner: node, "
            lines += [
                f"    stats: {{{place}columns: {{links: {{counted: node_facts, by: node}}, pages: {{counted: pages, by: node}}}}}}"
            ]
        if self.vector:
            payload = (
                ", payload: {score: t.score, note: t.note}" if self.into else ", payload: {size: t.size}"
            )
            lines += [f"    vector: {{collection: nodes, text: t.title{payload}}}"]
        lines += self._table(
            "pages", "page", "hash" if self.page == "key" else self.page, keys=("node", "number")
        )
        if self.page != "key":
            lines += [
                f"    id: {{rule: {self.page.split()[0]}{', type: bigint' if 'assigned' in self.page else ''}{', source: uid, type: uuid' if 'column' in self.page else ''}{', beside: true' if 'beside' in self.page else ''}}}"
            ]
        lines += [
            "    types: {number: integer}",
            "    columns: {text: text, n: {type: integer, source: number}}",
        ]
        lines += [
            f"    references: {{node: nodes, team: {{parent: teams, required: {str(not self.optional_team).lower()}, target: team_id}}}}"
        ]
        if self.rejected:
            lines += [
                "  rejections:",
                "    source: rej",
                "    key: [node, fact]",
                "    references: {node: nodes, fact: facts}",
            ]
        if self.into:
            lines += ["  scores:", "    source: score", "    key: node", "    into: nodes"]
            lines += [
                "    columns: {score: numeric, level: {type: integer, value: round(s.score)}}",
                "    otherwise: {level: '-1'}",
            ]
            lines += [
                "  notes:",
                "    source: note",
                "    key: node",
                "    into: nodes",
                "    present: NOT hidden",
                "    columns: {note: {source: body}}",
            ]
        return "\n".join(lines) + "\n"

    def _table(self, name: str, source: str, rule: str, keys: tuple[str, ...] = ("id",)) -> list[str]:
        lines = [f"  {name}:", f"    source: {source}", f"    key: [{', '.join(keys)}]"]
        if keys != ("id",):
            return lines
        beside = ", beside: true" if "beside" in rule else ""
        kind = rule.split()[0]
        natural = ", natural: [uri]" if name == "teams" else ", natural: [k]"
        given = {
            "hash": "", "same": "", "column": ", source: uid, type: uuid", "assigned": f", type: bigint{natural}",
            "uuid5": ", namespace: 0190a5b0-0000-7000-8000-000000000007", "expression": ", type: text, expression: \"'x' || $1\"",
        }[kind]  # fmt: skip
        if kind != "hash" or beside:
            lines.append(f"    id: {{rule: {kind}{given}{beside}}}")
        return lines

    def listed(self, name: str) -> bool:
        rule = str(getattr(self, name))
        return "beside" in rule or rule.split()[0] in ("column", "assigned")

    def id_type(self, name: str) -> str:
        rule = str(getattr(self, name)).split()[0]
        return {"same": "text", "expression": "text", "assigned": "bigint"}.get(rule, "uuid")

    def target(self) -> str:
        def own(name: str) -> str:
            type_ = self.id_type(name)
            identity = " GENERATED BY DEFAULT AS IDENTITY" if type_ == "bigint" else ""
            key = ", key text" if str(getattr(self, name)) != "same" else ""
            return f"id {type_}{identity} PRIMARY KEY{key}, sync_version bigint, sync_run bigint, reads int DEFAULT 0, k text UNIQUE"

        team, node, fact = (self.id_type(name) for name in ("team", "node", "fact"))
        page = {
            "key": "",
            "hash": "id uuid UNIQUE, ",
            "hash beside": "id uuid UNIQUE, ",
            "column": "id uuid UNIQUE, ",
            "column beside": "id uuid UNIQUE, ",
        }.get(self.page, "id bigint GENERATED BY DEFAULT AS IDENTITY UNIQUE, ")
        return f"""
        CREATE TABLE teams ({own("team")}, uri text UNIQUE CHECK (uri <> 'bad'), members bigint DEFAULT 0, best numeric);
        CREATE TABLE facts ({own("fact")}, title text CHECK (title <> 'bad'));
        CREATE TABLE nodes ({own("node")}, title text UNIQUE CHECK (title <> 'bad'), size int CHECK (size <> 13),
            team_id {team} NOT NULL REFERENCES teams,
            up_id {node} REFERENCES nodes, score numeric UNIQUE CHECK (score <> 13), level int NOT NULL DEFAULT 5,
            note text CHECK (note <> 'bad'), links bigint DEFAULT 0, pages bigint DEFAULT 0);
        CREATE TABLE node_facts (node {node} REFERENCES nodes, fact {fact} REFERENCES facts, weight float DEFAULT 9, place int,
            PRIMARY KEY (node, fact));
        CREATE TABLE node_stats (node {node} PRIMARY KEY REFERENCES nodes ON DELETE CASCADE, links bigint DEFAULT 0, pages bigint DEFAULT 0);
        CREATE TABLE team_stats (team {team} PRIMARY KEY REFERENCES teams ON DELETE CASCADE, members bigint DEFAULT 0, best numeric);
        CREATE TABLE pages ({page}node {node} REFERENCES nodes, number int, text text CHECK (text <> 'bad'), team_id {team} REFERENCES teams,
            n int,
            sync_version bigint, sync_run bigint, {"PRIMARY KEY (node, number)" if "beside" not in self.page else "UNIQUE (node, n)"});
        CREATE TABLE rejections (node {node} REFERENCES nodes, fact {fact} REFERENCES facts, sync_version bigint, sync_run bigint,
            PRIMARY KEY (node, fact));
        """


SOURCE = """
CREATE TABLE team (id text PRIMARY KEY, tn int, uid uuid, uri text);
CREATE TABLE fact (id text PRIMARY KEY, tn int, uid uuid, title text);
CREATE TABLE node (id text PRIMARY KEY, tn int, uid uuid, label text, amount text, team text, up text, facts text[], gone bool DEFAULT false);
CREATE TABLE score (node text PRIMARY KEY, tn int, score numeric);
CREATE TABLE note (node text PRIMARY KEY, tn int, body text, hidden bool DEFAULT false);
CREATE TABLE page (node text, number int, tn int, uid uuid, text text, team text, PRIMARY KEY (node, number));
CREATE TABLE rej (node text, fact text, tn int, PRIMARY KEY (node, fact));
"""


def uid(n: int) -> str:
    return f"{n:08d}-0000-4000-8000-000000000000"


class Killed(Exception):
    pass


class World:
    def __init__(self, graph: TestGraph, features: Features, seed: int) -> None:
        self.graph, self.features, self.random = graph, features, Random(seed)
        self.log: list[str] = []
        self.theirs: set[str] = set()
        self.map = self._read()

    def _read(self) -> SchemaMap:
        found = read_map(self.features.document, source="together.yaml")
        return found

    @property
    def one(self) -> SchemaMap:
        return of_tenant(self.map, 1) if self.features.tenant else self.map

    async def start(self) -> None:
        await made_by(
            self.graph,
            write=f"SET search_path = kg; {SOURCE}",
            target=f"SET search_path = kg; {self.features.target()}",
        )
        await migrate_bookkeeping(self.graph.target, "kg")
        await adopt(self.graph.write, "kg", self.map)
        await self.readers()

    async def readers(self) -> None:
        """Rows and links of others, where the map lets them be."""
        f = self.features
        ids = {"uuid": f"'{uid(900)}'", "text": "'theirs'", "bigint": "900"}
        for table, name in (("teams", "team"), ("facts", "fact"), ("nodes", "node")):
            if not f.listed(name) or (name == "node" and "teams" not in self.theirs):
                continue
            more = ", team_id" if name == "node" else ""
            value = f", {ids[f.id_type('team')]}" if name == "node" else ""
            await on_target(
                self.graph,
                f"INSERT INTO kg.{table} (id, k, reads{more}) VALUES ({ids[f.id_type(name)]}, 'theirs', 7{value})",
            )
            self.theirs.add(table)
        if f.ours and {"nodes", "facts"} <= self.theirs:
            await on_target(
                self.graph,
                f"INSERT INTO kg.node_facts VALUES ({ids[f.id_type('node')]}, {ids[f.id_type('fact')]}, 77)",
            )
            self.theirs.add("links")

    async def link(self) -> None:
        if self.features.ours and self.features.counts == "none":
            k, o = self.random.choice(KEYS), self.random.choice(KEYS)
            script = f"INSERT INTO kg.node_facts SELECT n.id, f.id, 77 FROM kg.nodes n, kg.facts f WHERE n.k = '{k}' AND f.k = '{o}' ON CONFLICT DO NOTHING"
            self.log.append(script)
            await on_target(self.graph, script)

    async def change(self, features: Features) -> None:
        self.log.append(f"-- map: {features}")
        self.features = features
        for table, name in (("teams", "team"), ("facts", "fact"), ("nodes", "node")):
            if not features.listed(name):
                gone = {table, "links", *(["nodes"] if table == "teams" else [])}
                if gone & self.theirs:
                    # They would be extra.
                    await on_target(
                        self.graph,
                        "SET search_path = kg; DELETE FROM node_facts USING nodes n, facts f WHERE n.id = node AND f.id = fact AND 'theirs' IN (n.k, f.k)",
                    )
                    for each in [t for t in ("nodes", "facts", "teams") if t in gone]:
                        await on_target(self.graph, f"DELETE FROM kg.{each} WHERE k = 'theirs'")
                self.theirs -= gone
        if not features.ours:
            self.theirs -= {"links"}
        self.map = self._read()
        await adopt(self.graph.write, "kg", self.map)

    async def write(self, script: str) -> None:
        self.log.append(script)
        await write(self.graph, f"SET search_path = kg; {script}")

    async def cycle(self, *, batch: int = 1000, dies: int = 0) -> SyncResult | None:
        self.log.append(f"-- cycle {batch} {dies}")
        context = replace(self.graph.context(batch_rows=batch), retry=RetryRules(vector_seconds=0))
        if dies:
            left = dies

            def beat(_: object) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    raise Killed

            context = replace(context, heartbeat=beat)
        try:
            result = await SyncEngine(self.one).run_cycle(context)
        except Killed:
            return None
        assert [(t.table, t.error) for t in result.tables if t.error] == []
        assert result.status is CycleStatus.DRAINED
        return result

    def op(self) -> str:
        r = self.random
        k, o = r.choice(KEYS), r.choice(KEYS)
        tn = r.choice([1, 1, 1, 2])
        id_ = r.choice([f"'{uid(r.randint(1, 7))}'"] * 9 + ["NULL"])
        array = "'{" + ",".join(r.choice([*KEYS, *KEYS, "NULL", "z"]) for _ in range(r.randint(0, 4))) + "}'"
        bad = r.random() < 0.1
        which = r.randint(0, 24)
        match which:
            case 0 | 1:
                uri = "bad" if bad else f"u{o}"
                return f"INSERT INTO team VALUES ('{k}', {tn}, {id_}, '{uri}') ON CONFLICT (id) DO UPDATE SET uri = excluded.uri, tn = excluded.tn, uid = excluded.uid"
            case 2 | 3:
                return f"INSERT INTO fact VALUES ('{k}', {tn}, {id_}, '{'bad' if bad else o}') ON CONFLICT (id) DO UPDATE SET title = excluded.title, uid = excluded.uid"
            case 4 | 5 | 6 | 7:
                team = f"u{o}" if self.features.by else o
                label = "bad" if bad else r.choice(KEYS)
                return (
                    f"INSERT INTO node VALUES ('{k}', {tn}, {id_}, '{label}', '{r.choice([1, 2, 13] if bad else [1, 2])}', '{team}', '{r.choice(KEYS)}', {array})"
                    " ON CONFLICT (id) DO UPDATE SET label = excluded.label, team = excluded.team, up = excluded.up, facts = excluded.facts, uid = excluded.uid, gone = false"
                )
            case 8:
                return f"UPDATE node SET facts = {array} WHERE id = '{k}'"
            case 9:
                return f"UPDATE node SET gone = NOT gone WHERE id = '{k}'"
            case 10:
                return f"UPDATE {r.choice(['node', 'team', 'fact'])} SET tn = {tn} WHERE id = '{k}'"
            case 11:
                table = r.choice(["node", "fact", "team"])
                return f"UPDATE {table} n SET uid = o.uid FROM {table} o WHERE (n.id, o.id) IN (('{k}', '{o}'), ('{o}', '{k}'))"
            case 12:
                return f"UPDATE node n SET label = o.label FROM node o WHERE (n.id, o.id) IN (('{k}', '{o}'), ('{o}', '{k}'))"
            case 13:
                return f"DELETE FROM {r.choice(['node', 'fact', 'team'])} WHERE id = '{k}'"
            case 14:
                table = r.choice(["node", "fact", "team"])
                return f"DELETE FROM {table} WHERE id = '{o}'; UPDATE {table} SET id = '{o}' WHERE id = '{k}'"
            case 15 | 16:
                return f"INSERT INTO score VALUES ('{k}', {tn}, {13 if bad else r.randint(1, 6)}) ON CONFLICT (node) DO UPDATE SET score = excluded.score"
            case 17:
                return f"INSERT INTO note VALUES ('{k}', {tn}, '{'bad' if bad else o}', {r.choice(['true', 'false', 'NULL'])}) ON CONFLICT (node) DO UPDATE SET body = excluded.body, hidden = excluded.hidden"
            case 18:
                return f"DELETE FROM {r.choice(['score', 'note', 'page', 'rej'])} WHERE node = '{k}'"
            case 19:
                return f"UPDATE score n SET score = o.score FROM score o WHERE (n.node, o.node) IN (('{k}', '{o}'), ('{o}', '{k}'))"
            case 20 | 21:
                return f"INSERT INTO page VALUES ('{k}', {r.randint(1, 2)}, {tn}, {id_}, '{'bad' if bad else 'p'}', '{o}') ON CONFLICT (node, number) DO UPDATE SET text = excluded.text, team = excluded.team, uid = excluded.uid"
            case 22:
                return f"INSERT INTO rej VALUES ('{k}', '{o}', {tn}) ON CONFLICT DO NOTHING"
            case 23:
                return (
                    f"DELETE FROM score WHERE node = '{o}'; UPDATE score SET node = '{o}' WHERE node = '{k}'"
                )
        return f"UPDATE team SET uri = uri || '' , uid = uid WHERE id = '{k}'; UPDATE page SET node = '{o}', number = 3 WHERE node = '{k}' AND number = 1 AND NOT EXISTS (SELECT FROM page WHERE node = '{o}' AND number = 3)"

    MEND = """
    UPDATE team SET uri = 'u' || id WHERE true;
    UPDATE fact SET title = 't' || id;
    UPDATE node SET label = 'n' || id, amount = '1';
    UPDATE score SET score = 100 + ascii(node);
    UPDATE note SET body = 'b' || node;
    UPDATE page SET text = 'p' || number;
    UPDATE team SET uid = md5('team' || id)::uuid; UPDATE fact SET uid = md5('fact' || id)::uuid; UPDATE node SET uid = md5('node' || id)::uuid;
    UPDATE page SET uid = md5('page' || node || number)::uuid;
    """

    async def settle(self) -> None:
        await self.write(self.MEND)
        for _ in range(4):
            await on_target(self.graph, "UPDATE kg.sync_dead_letter SET next_retry_at = now()")
            await self.cycle()

    async def source(self, sql: str) -> list[tuple[object, ...]]:
        connection = await self.graph.connect_write()
        try:
            await connection.execute("SET search_path = kg")
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    async def read(self, sql: str) -> list[tuple[object, ...]]:
        connection = await self.graph.connect_target()
        try:
            await connection.execute("SET search_path = kg")
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    async def verified(self, *, exact: bool = True) -> list[object]:
        context = self.graph.context()
        found = await verify(
            self.one,
            write=context.write,
            target=context.target,
            vectors=context.vectors,
            embedding=context.embedding.name,
            keys=5,
        )
        return [
            (e.name, e.problem, e.missing, e.extra, e.stale)
            for e in found.relations
            if e.damaged or e.problem
        ]

    async def compare(self) -> None:
        f = self.features
        tn = " AND tn = 1" if f.tenant else ""

        def where(table: str, more: str = "true") -> str:
            return f"SELECT * FROM {table} WHERE {more}{tn}"

        by = "uri" if f.by else "id"
        base = f"""WITH teams AS ({where("team")}), facts AS ({where("fact")}),
        nodes AS (SELECT n.*, t.id AS team_k FROM ({where("node", "NOT gone")}) n JOIN teams t ON t.{by} = n.team),
        rejs AS (SELECT r.* FROM ({where("rej")}) r JOIN nodes n ON n.id = r.node JOIN facts f ON f.id = r.fact),
        links AS (SELECT n.id AS node, e.v AS fact, min(e.o) AS place FROM nodes n, unnest(n.facts) WITH ORDINALITY e (v, o)
            WHERE e.v IN (SELECT id FROM facts) {"AND NOT EXISTS (SELECT FROM rejs r WHERE r.node = n.id AND r.fact = e.v)" if f.rejected else ""} GROUP BY 1, 2),
        scores AS (SELECT s.* FROM ({where("score")}) s JOIN nodes n ON n.id = s.node),
        notes AS (SELECT s.* FROM ({where("note", "NOT hidden")}) s JOIN nodes n ON n.id = s.node),
        pages AS (SELECT p.* FROM ({where("page")}) p JOIN nodes n ON n.id = p.node {"" if f.optional_team else "JOIN teams t ON t.id = p.team"})
        """
        into = "s.score, coalesce(round(s.score)::int, -1), o.body" if f.into else "NULL, NULL, NULL"
        tinto = "n.score, n.level, n.note" if f.into else "NULL, NULL, NULL"
        counts = {
            "none": ("0", "0", "0", "NULL"),
            "row": ("n.links", "n.pages", "t.members", "t.best"),
            "table": (
                "(SELECT links FROM node_stats s WHERE s.node = n.id)",
                "(SELECT pages FROM node_stats s WHERE s.node = n.id)",
                "(SELECT members FROM team_stats s WHERE s.team = t.id)",
                "(SELECT best FROM team_stats s WHERE s.team = t.id)",
            ),
        }[f.counts]
        counted = f.counts != "none"
        pairs = {
            "nodes": (
                base
                + f"""SELECT n.id, n.label, n.amount::int, n.team_k, (SELECT u.id FROM nodes u WHERE u.id = n.up), {into},
                {"(SELECT count(*) FROM links l WHERE l.node = n.id)" if counted else 0}, {"(SELECT count(*) FROM pages p WHERE p.node = n.id)" if counted else 0}
                FROM nodes n LEFT JOIN scores s ON s.node = n.id LEFT JOIN notes o ON o.node = n.id ORDER BY 1""",
                f"""SELECT n.k, n.title, n.size, t.k, u.k, {tinto}, {counts[0]}{" - (SELECT count(*) FROM node_facts l JOIN facts x ON x.id = l.fact WHERE l.node = n.id AND l.weight = 77)" if counted else ""}, {counts[1]}
                FROM nodes n LEFT JOIN teams t ON t.id = n.team_id LEFT JOIN nodes u ON u.id = n.up_id WHERE coalesce(n.k, '') <> 'theirs' ORDER BY 1""",
            ),
            "teams": (
                base
                + f"""SELECT t.id, t.uri, {"(SELECT count(*) FROM nodes n WHERE n.team_k = t.id)" if counted else 0},
                {"(SELECT max(s.score) FROM nodes n JOIN scores s ON s.node = n.id WHERE n.team_k = t.id)" if counted and f.into else "NULL"} FROM teams t ORDER BY 1""",
                f"SELECT t.k, t.uri, {counts[2]}, {counts[3] if f.into else 'NULL'} FROM teams t WHERE k <> 'theirs' ORDER BY 1",
            ),
            "facts": (
                base + "SELECT id, title FROM facts ORDER BY 1",
                "SELECT k, title FROM facts WHERE k <> 'theirs' ORDER BY 1",
            ),
            "links": (
                base + f"SELECT node, fact, {'place' if f.position else 'NULL'} FROM links ORDER BY 1, 2",
                f"SELECT n.k, f.k, {'l.place' if f.position else 'NULL'} FROM node_facts l LEFT JOIN nodes n ON n.id = l.node LEFT JOIN facts f ON f.id = l.fact WHERE coalesce(l.weight, 0) <> 77 ORDER BY 1, 2",
            ),
            "pages": (
                base
                + "SELECT p.node, p.number, p.text, (SELECT id FROM teams t WHERE t.id = p.team) FROM pages p ORDER BY 1, 2",
                "SELECT n.k, p.n, p.text, t.k FROM pages p LEFT JOIN nodes n ON n.id = p.node LEFT JOIN teams t ON t.id = p.team_id ORDER BY 1, 2",
            ),
        }
        if f.rejected:
            pairs["rejections"] = (
                base + "SELECT node, fact FROM rejs ORDER BY 1, 2",
                "SELECT n.k, f.k FROM rejections l LEFT JOIN nodes n ON n.id = l.node LEFT JOIN facts f ON f.id = l.fact ORDER BY 1, 2",
            )
        for name, (ours, theirs) in pairs.items():
            wanted, found = await self.source(ours), await self.read(theirs)
            if name == "links":
                others = await self.read(
                    "SELECT n.k, f.k FROM node_facts l JOIN nodes n ON n.id = l.node JOIN facts f ON f.id = l.fact WHERE l.weight = 77"
                )
                wanted = [each for each in wanted if each[:2] not in others]
            assert found == wanted, name
        for table in sorted(self.theirs):
            counted = (
                "node_facts WHERE weight = 77 AND node::text IN (SELECT id::text FROM nodes WHERE k = 'theirs')"
                if table == "links"
                else f"{table} WHERE k = 'theirs' AND reads = 7"
            )
            assert await self.read(f"SELECT count(*) FROM {counted}") == [(1,)], table


def features_of(random: Random) -> Features:
    flip = lambda p=0.5: random.random() < p
    node = random.choice(RULES)
    return Features(
        team=random.choice(RULES),
        node=node,
        fact=random.choice(RULES),
        ours=flip(),
        position=flip(),
        columns=flip(),
        rejected=flip(),
        counts=random.choice(["none", "row", "table"]),
        into=flip(0.6),
        tenant=flip(0.3),
        vector=flip(0.3) and node.split()[0] in ("hash", "column", "uuid5"),
        by=flip(0.2),
        page=random.choice(
            ["key", "key", "hash", "hash beside", "column", "column beside", "assigned", "assigned beside"]
        ),
    )


def next_of(f: Features, random: Random) -> Features:
    def turned(rule: str) -> str:
        kind = rule.split()[0]
        if kind == "same" or random.random() < 0.5:
            return rule
        return kind if "beside" in rule else f"{kind} beside"

    flip = lambda: random.random() < 0.5
    return replace(
        f, team=turned(f.team), node=turned(f.node), fact=turned(f.fact),
        ours=flip(), position=flip(), columns=flip(), rejected=f.rejected,
        counts=random.choice(["none", "row", "table"]), into=flip(),
    )  # fmt: skip


async def history(graph: TestGraph, seed: int, *, changes: int = 0, rounds: int = 10) -> None:
    random = Random(seed)
    features = features_of(random)
    world = World(graph, features, seed)
    try:
        await world.start()
        for n in range((changes + 1) * rounds):
            await world.link()
            await world.write("; ".join(world.op() for _ in range(random.randint(1, 6))))
            if random.random() < 0.7:
                await world.cycle(
                    batch=random.choice([1, 2, 3, 1000]), dies=random.choice([0, 0, 0, 1, 2, 4])
                )
            if random.random() < 0.3:
                await world.cycle()
                await world.cycle()
                damage = await world.verified()
                assert damage == []
            if changes and n % rounds == rounds - 1 and n < changes * rounds:
                if random.random() < 0.7:
                    await world.settle()
                    await world.compare()
                await world.change(next_of(world.features, random))
        await world.settle()
        assert await world.read("SELECT table_name, key, message FROM sync_dead_letter") == []
        await world.compare()
        assert await world.verified() == []
    except BaseException:
        for sql in (
            "SELECT * FROM sync_parked_row",
            "SELECT * FROM sync_dead_letter",
            "SELECT table_name, row_id, key, reason FROM sync_requeue",
            "SELECT * FROM sync_row",
            "SELECT * FROM nodes",
            "SELECT * FROM facts",
            "SELECT * FROM rejections",
            "SELECT * FROM sync_comparison",
            "SELECT * FROM sync_cursor",
        ):
            world.log.append(sql + "\n  " + "\n  ".join(map(str, await world.read(sql))))
        world.log += map(str, await world.source("SELECT * FROM rej"))
        Path(f"/tmp/adv/{seed}.log").write_text(world.features.document + "\n" + "\n".join(world.log))
        raise


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(*map(int, os.environ.get("SEEDS", "0,10").split(","))))
async def test_history(new_database: Callable[..., str], tmp_path: Path, seed: int) -> None:
    async with bare_graph(new_database, tmp_path) as graph:
        await history(graph, seed, changes=int(os.environ.get("CHANGES", "0")))
