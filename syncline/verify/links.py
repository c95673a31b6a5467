"""Links: compares a table's arrays with a link table of the graph-db."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from syncline.engine.key_forms import form
from syncline.engine.render.fragments import commas, travels
from syncline.engine.render.identity import Identity
from syncline.engine.render.links import link_end
from syncline.engine.render.statements import SchemaStatements
from syncline.engine.render.tenants import source_rows
from syncline.engine.table_map import Links, SchemaMap, TableMap
from syncline.engine.template import sql as engine_sql
from syncline.maps.table_map import Ownership
from syncline.messages.verification import Verdict
from syncline.sql import literal, quoted, statements_of
from syncline.verify.checksums import RowChecksums, bucket, key_uuid, numbered
from syncline.verify.in_flight import Captured, InFlight, Refused
from syncline.verify.rows import Queries, suspected
from syncline.verify.snapshots import Snapshots
from syncline.verify.tally import Tally

__all__ = ["compare_links"]

_sql = statements_of("syncline.verify")


async def compare_links(
    snapshots: Snapshots,
    statements: SchemaStatements,
    images: RowChecksums,
    links: Links,
    refused: Refused,
    tally: Tally,
) -> None:
    """Compare all links of one array of a table; note differences in `tally`.

    Owners that are damaged, pending, parked or rejected are reported by the row comparison, not here. Links
    that others made are not counted where the map leaves them to them.
    """
    table = images.table
    cursor, load = snapshots.cursors[table.name], snapshots.loads.get(table.name)
    captured = Captured(snapshots.schema, statements.tables[table.name], images, cursor, load, refused.keys)
    unsettled = InFlight(snapshots, statements, captured, table=table, waiting=[links.table])
    queries = _Queries(statements.schema_map, captured, table, links).rendered()
    found = suspected(snapshots, queries, captured, unsettled, tally)
    async for owner, (expected, actual, known, gone) in found:
        if not _settled(expected, actual, known, gone):
            continue
        told = expected[0]["owner_key"] if expected else str(owner)
        owner_key = tuple(told) if isinstance(told, list) else (told,)
        for verdict, member_key in _judge(expected, actual, placed=links.position is not None):
            if verdict is None:
                tally.same()
            else:
                await tally.note(verdict, (*owner_key, member_key), owner, asked=owner_key)


class _Queries:
    """The queries about one link table."""

    def __init__(self, schema_map: SchemaMap, captured: Captured, table: TableMap, links: Links) -> None:
        self._map, self._captured, self._table, self._links = schema_map, captured, table, links
        self._own, self._parent = Identity(schema_map, table), Identity(schema_map, schema_map[links.parent])
        self._placed, self._ours = links.position is not None, links.owned is Ownership.OURS
        self._by_row = not (self._own.hashed and self._parent.hashed and links.bare) or table.listed

    def rendered(self) -> Queries:
        return Queries(
            source_sums=self._source_sums(),
            target_sums=self._target_sums(),
            source=self._source(),
            target=self._target(),
        )

    def _source_sums(self) -> str:
        return _sql(
            "link_sums_source",
            bucket=bucket("s.sync_row_id"),
            hash=_pair("s.sync_row_id", "m.member", "m.place" if self._placed else None),
            links=self._members(self._captured.passed(2), join="JOIN"),
        )

    def _target_sums(self) -> str:
        owner, member = quoted(self._links.owner), quoted(self._links.member)
        return _sql(
            "link_sums_target",
            bucket=bucket(f"l.{owner}"),
            hash=_pair(f"l.{owner}", f"l.{member}", "l.sync_place" if self._placed else None),
            links=self._made(),
            owner=owner,
            known=" AND l.sync_ours IS NOT NULL" if self._ours else "",
        )

    def _made(self) -> str:
        """Return the FROM item of the link table `l`, with row ids."""
        links, owner, member = (quoted(n) for n in (self._links.table, self._links.owner, self._links.member))
        if not self._by_row:
            return links
        more = f", l.{quoted(self._links.position)}::bigint AS sync_place" if self._links.position else ""
        if self._ours:
            more += _sql(
                "link_ours",
                links_name=literal(self._links.table),
                owner_end=link_end(self._own, f"l.{owner}"),
                member_end=link_end(self._parent, f"l.{member}"),
            ).rstrip()
        return _sql(
            "links_by_row",
            links=links,
            owner=owner,
            member=member,
            owner_row=self._own.row_of(f"l.{owner}"),
            member_row=self._parent.row_of(f"l.{member}"),
            member_key="NULL" if self._parent.hashed else self._parent.key_of(f"l.{member}"),
            more=more,
            listed=f" WHERE {self._own.listed('true', f'l.{owner}')}" if self._table.listed else "",
        ).strip()

    def _source(self) -> str:
        return _sql(
            "listed_links_source",
            owner_key=self._owner_key(),
            links=self._members(self._captured.passed(3), join="LEFT JOIN"),
            coming=self._captured.coming(3),
            bucket=bucket("s.sync_row_id"),
            place=", m.place" if self._placed else "",
            no_place=", NULL" if self._placed else "",
        )

    def _target(self) -> str:
        return _sql(
            "listed_links_target",
            owners=self._own.ours,
            owner_row=self._own.row_id("o"),
            made=self._made(),
            member_key="l.sync_member_key" if self._by_row else "NULL",
            kind="CASE WHEN l.sync_ours THEN 'linked' ELSE 'others' END" if self._ours else "'linked'",
            listed_place=", f.place" if self._placed else "",
            no_place=", NULL::bigint AS place" if self._placed else "",
            place=", l.sync_place" if self._placed else "",
            waiting_place=", r.place" if self._placed else "",
            is_parent=self._parent.is_landed("p", "r.waits_for_key", self._parent.parked()),
            same_member=f"p.{self._parent.column} = f.member" if self._parent.hashed else "false",
            parent_key=self._parent.parts("p")[0],
            table=literal(self._table.name),
            name=literal(self._links.table),
            owner=quoted(self._links.owner),
            member=quoted(self._links.member),
            parent=quoted(self._links.parent),
            rejections=self._landed_rejections(),
            bucket=bucket("f.owner"),
        )

    def _members(self, owners: str, *, join: str) -> str:
        return _sql(
            "source_links",
            owners=owners,
            join=join,
            member_id=key_uuid("d.key"),
            rejected=self._rejected(),
            members=self._named(),
            place=", d.place" if self._placed else "",
        )

    def _owner_key(self) -> str:
        parts = [f"s.{quoted(name)}" for name in self._table.key]
        return parts[0] if len(parts) == 1 else f"ARRAY[{commas(parts)}]"

    def _named(self) -> str:
        """Return the query for the distinct keys that the array of a row `s` names."""
        array, type_ = quoted(self._links.source), self._table.element_types[self._links.source]
        json = self._table.is_json(self._links.source)
        if type_.plain and self._parent.takes(type_) and not json and not self._placed:
            return _sql("named", array=array).strip()
        # A row that is parked has not been refused yet for what its array names.
        key = self._parent.named_in(self._links, type_, form(type_, "a.value"), safely=True, there=True)
        elements = engine_sql("json_elements" if json else "elements", source=array).strip()
        if self._links.unreadable is not None:
            placed = "named_texts_in_order" if self._placed else "named_texts"
            return _sql(placed, elements=elements, key=key).strip()
        return _sql(
            "named_in_order" if self._placed else "named_by",
            elements=elements,
            key=key,
            named="a.value" if self._parent.takes(type_) else f"({key})",
        ).strip()

    def _rejected(self) -> str:
        if self._links.rejected_by is None:
            return "false"
        rejections = self._map[self._links.rejected_by]
        owner, member = rejections.key
        return _sql(
            "rejected",
            rejections=source_rows(rejections, self._captured.schema),
            rejected_owner=travels(rejections, owner),
            rejected_member=travels(rejections, member),
            owner_key=quoted(self._table.key[0]),
            present=rejections.present,
        )

    def _landed_rejections(self) -> str:
        if self._links.rejected_by is None:
            return ""
        rejections = self._map[self._links.rejected_by]
        owner, member = rejections.target_key
        return _sql(
            "rejections",
            owner=self._own.row_of(f"x.{quoted(owner)}"),
            member=self._parent.row_of(f"x.{quoted(member)}"),
            rejections=quoted(rejections.name),
            no_place=", NULL" if self._placed else "",
        )


def _pair(owner: str, member: str, place: str | None) -> str:
    ends = " || ".join(f"uuid_send({part})" for part in (owner, member))
    return numbered(ends if place is None else f"{ends} || int8send({place})")


def _settled(
    expected: Sequence[asyncpg.Record],
    actual: Sequence[asyncpg.Record],
    known: Sequence[asyncpg.Record],
    gone: Sequence[asyncpg.Record],
) -> bool:
    """Return whether an owner has been applied as it is in the write-db, or is on neither side."""
    if gone or any(record["kind"] != "waiting" for record in known):
        return False
    if any(record["coming"] for record in expected):
        return False
    return bool(expected) is any(record["kind"] == "owner" for record in actual)


def _judge(
    expected: Sequence[asyncpg.Record], actual: Sequence[asyncpg.Record], *, placed: bool
) -> list[tuple[Verdict | None, str]]:
    """Return (verdict, member key) for each link of a settled owner that exists or should.

    A link that others made is none of ours unless the array names it too.

    A rejection that only one side has is damaged, pending, parked or rejected itself, which its table's
    comparison reports. Until it has been applied, or removed, the link may exist or not.
    """
    wanted: dict[UUID, str] = {}
    rejected: set[UUID] = set()
    for record in expected:
        if record["member"] is not None:
            wanted[record["member"]] = record["member_key"]
            if record["rejected"]:
                rejected.add(record["member"])
    made: dict[UUID, str] = {}
    kinds: dict[str, set[UUID]] = {"owner": set(), "linked": set(), "waits": set(), "rejected": set()}
    for record in actual:
        kind = record["kind"]
        if kind == "others":
            if record["member"] not in wanted:
                continue
            kind = "linked"
        kinds[kind].add(record["member"])
        if kind in ("linked", "waits"):
            made[record["member"]] = record["member_key"]
    moved = _moved(expected, actual) if placed else set()
    found: list[tuple[Verdict | None, str]] = []
    for member, key in sorted({**made, **wanted}.items()):
        undecided = member in wanted and (member in rejected) is not (member in kinds["rejected"])
        desired = member in wanted and not (member in rejected and member in kinds["rejected"])
        if member in made:
            extra = not desired and not undecided
            verdict = Verdict.EXTRA if extra else None
            if not extra and member not in kinds["linked"]:
                verdict = Verdict.PARKED
            elif desired and member in moved:
                verdict = Verdict.STALE
            found.append((verdict, key))
        elif desired and not undecided:
            found.append((Verdict.MISSING, key))
    return found


def _moved(expected: Sequence[asyncpg.Record], actual: Sequence[asyncpg.Record]) -> set[UUID]:
    """Return the members whose links have another place than the array."""
    places = {record["member"]: record["place"] for record in expected if record["member"] is not None}
    return {
        record["member"]
        for record in actual
        if record["kind"] in ("linked", "others") and record["place"] != places.get(record["member"])
    }
