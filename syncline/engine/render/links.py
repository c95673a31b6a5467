"""Links: the parts of the statements about a link table, and what columns, places and owners add to them."""

from collections.abc import Sequence

from syncline.engine.key_forms import form, read
from syncline.engine.render.fragments import commas, link_names, row_id, unrejected
from syncline.engine.render.identity import Identity, key_hash
from syncline.engine.render.stats import touched
from syncline.engine.table_map import Links, SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.maps.ids import IdRule
from syncline.maps.key_types import Kind
from syncline.maps.table_map import Ownership
from syncline.sql import literal, quoted

__all__ = ["LinkTable", "link_end"]


def link_end(identity: Identity, target_id: str) -> str:
    """Return how `sync_link` has an end of a link: a uuid as it is, the hash of another id."""
    type_ = identity.table.id_type
    return target_id if type_.kind is Kind.UUID else key_hash(form(type_, f"({target_id})"))


class LinkTable:
    """One link table: the fragments in which its statements differ. They are empty for `bare` links."""

    def __init__(self, schema_map: SchemaMap, table: TableMap, links: Links) -> None:
        self._map, self._table, self._links = schema_map, table, links
        self.own, self.parent = Identity(schema_map, table), Identity(schema_map, schema_map[links.parent])
        self.ours = links.owned is Ownership.OURS
        self.placed = links.position is not None
        named = [*([links.position] if links.position is not None else []), *links.columns]
        self.columns = "".join(f", {quoted(name)}" for name in named)
        """The further columns of an INSERT."""
        values = [*(["d.place"] if self.placed else []), *(f"({sql})" for sql in links.columns.values())]
        self.values = "".join(f", {value}" for value in values)
        """Their values, over a wanted link `d` and its owner's row `t`."""

    # What other statements are filled in with -----------------------------------------------------------

    def released(self) -> dict[str, str]:
        """Return what is added to the release of parked links."""
        owner, member = quoted(self._links.owner), quoted(self._links.member)
        stands = {"links": quoted(self._links.table), "owner": owner, "member": member}
        return {
            "columns": self.columns,
            "values": self.values,
            "place": ", r.place" if self.placed else "",
            # A conflict on anything else is an error: the link would be lost in silence.
            "conflict": "" if self._links.bare else f" ({owner}, {member})",
            "recorded": self._recorded("changed", "ready", stood=sql("link_stood", **stands).strip()),
        }

    def rejected(self, stage: str, owner: str, member: str) -> dict[str, str]:
        """Return what is added where a rejection `s` with these ids removes its link."""
        return {
            "is_ours": self._is_ours(f"l.{quoted(self._links.owner)}", f"l.{quoted(self._links.member)}"),
            "recorded": self._unrecorded(f"{stage} s", "s.sync_present", f"s.{owner}", member=f"s.{member}"),
        }

    def left_by_owner(self) -> str:
        """Return what is added where all links of removed rows `g` leave."""
        name = literal(self._table.name)
        gone = f"{self.own.gone_rows()} g"
        owner = "g.row_id" if self.own.hashed else "g.sync_target_id"
        return self._unrecorded(gone, f"g.table_name = '{name}'", owner)

    def left_by_member(self) -> dict[str, str]:
        """Return what is added where links to removed rows leave, and are parked from `removed r`."""
        owner, member = f"r.{quoted(self._links.owner)}", f"r.{quoted(self._links.member)}"
        return {
            "is_ours": self._is_ours(owner, member, made=False),
            "recorded": self._unrecorded("removed r", "true", owner, member=member),
        }

    def parked_place(self, row: str) -> tuple[str, str]:
        """Return the further column of a parked link, and its value from a row with that place."""
        return (", place", f", {row}") if self.placed else ("", "")

    def all_recorded(self) -> str:
        """Return the statement by which every link that is there counts as the engine's."""
        return sql("links_all_recorded", links=quoted(self._links.table), **self._ends("l"))

    def of_others(self, schema: str) -> str:
        """Return the query for whether the link table of a schema has links that others made."""
        return sql(
            "links_of_others", schema=quoted(schema), links=quoted(self._links.table), **self._ends("l")
        )

    # The merge --------------------------------------------------------------------------------------------

    def merge(self, stage: str, *, counts: bool = True) -> str:
        """Return the merge of a staged batch's links that are not `bare`.

        Without `counts`, nothing is noted to be counted.
        """
        names = link_names(self._links)
        parts = ["removed", "added", *(["moved"] if self.placed else [])]
        position = quoted(self._links.position or "")
        return sql(
            "merge_full_links",
            stage=stage,
            wanted=self.wanted(stage),
            parked=self.parked(stage),
            own_id=self.own.staged,
            own_column=self.own.column,
            child=quoted(self._table.name),
            is_ours=self._is_ours(f"l.{names['owner']}", f"l.{names['member']}"),
            first_place=", min(d.place) AS place" if self.placed else "",
            moved=sql("links_moved", position=position, **_part(names, "links", "owner", "member"))
            if self.placed
            else "",
            moves=" + (SELECT count(*) FROM moved)" if self.placed else "",
            columns=self.columns,
            values=self.values,
            recorded=self._forgotten(stage) + self._recorded("added", "found", stood="d.sync_linked"),
            touched=self.touched(parts, counts=counts),
            **_part(names, "links", "owner", "member", "parent"),
        )

    def wanted(self, stage: str) -> str:
        """Return the query for the links `d` that a staged batch's arrays name."""
        return sql(
            "links_wanted",
            named=self._named(stage),
            member_id="m.key" if self._by_id else self.parent.id_of("m.key"),
            named_key=("" if self._by_id else ", m.key") + (", m.place" if self.placed else ""),
            parent_id=self.parent.column,
            there=sql(
                "links_there" if self._plain else "links_looked_up",
                parent=quoted(self._links.parent),
                parent_id=self.parent.column,
            ).strip(),
            unrejected=unrejected(self._map, self._links),
        ).strip()

    @property
    def _by_id(self) -> bool:
        """Whether a member's key is its id: then it is read once, and no text is made of it."""
        parent = self.parent.table
        return parent.id_rule is IdRule.SAME and len(parent.key) == 1 and self._links.unreadable is None

    @property
    def _plain(self) -> bool:
        """Whether the array has the members' keys as they are, and its rows hashed ids."""
        source, type_ = self._links.source, self._table.element_types[self._links.source]
        plain = self._links.bare and self.own.hashed and type_.plain and self.parent.takes(type_)
        return plain and not self._table.is_json(source)

    def _named(self, stage: str) -> str:
        """Return the query for the keys that arrays name, with their owners."""
        source, type_ = self._links.source, self._table.element_types[self._links.source]
        is_json = self._table.is_json(source)
        if self._plain:
            return sql("links_named", source=quoted(source), stage=stage).strip()
        elements = "json_elements" if is_json else "elements"
        text, key_type = form(type_, "e.value"), self.parent.table.key_types[0]
        named = self.parent.named_in(self._links, type_, text)
        return sql(
            "links_placed" if self.placed else "links_named_by",
            own_id=self.own.staged,
            key=read(key_type, f"({text})") if self._by_id else named,
            stage=stage,
            elements=sql(elements, source=quoted(source)).strip(),
        ).strip()

    def parked(self, stage: str) -> str:
        """Return the part of a merge that parks the links whose member is missing."""
        also, also_kept = self.parked_place("d.place")
        names = link_names(self._links)
        own_key = commas([f"s.{quoted(name)}" for name in self._table.key])
        # Of these few alone, not of every link that is wanted.
        key = form(self.parent.table.key_types[0], "d.member") if self._by_id else "d.key"
        owner = sql("links_owner", stage=stage, own_id=self.own.staged).rstrip()
        return sql(
            "links_parked",
            table=literal(self._table.name),
            owner_row="d.owner" if self.own.hashed else row_id(self._table),
            of_owner="" if self.own.hashed else owner,
            member_key=key,
            member_row="d.member" if self.parent.hashed else key_hash(key),
            also=("" if self.own.hashed else ", owner_key") + also,
            also_kept=("" if self.own.hashed else f", ARRAY[{own_key}]") + also_kept,
            **_part(names, "links_name", "parent_name"),
        ).strip()

    def touched(self, parts: Sequence[str], *, counts: bool = True) -> str:
        """Return the part of a merge that notes the rows whose counts its `parts` change."""
        ends = (self._links.owner, self._links.member)
        return touched(self._map, self._links.table, [(f"{part} c", ends) for part in parts], counts=counts)

    # Whose links they are ---------------------------------------------------------------------------------

    def _ends(self, row: str) -> dict[str, str]:
        return {
            "links_name": literal(self._links.table),
            "owner_end": link_end(self.own, f"{row}.{quoted(self._links.owner)}"),
            "member_end": link_end(self.parent, f"{row}.{quoted(self._links.member)}"),
        }

    def _is_ours(self, owner: str, member: str, *, made: bool = True) -> str:
        """Return the condition that the engine has made a link; unless `made`, that an array names it."""
        if not self.ours:
            return ""
        return sql(
            "link_is_ours",
            links_name=literal(self._links.table),
            owner_end=link_end(self.own, owner),
            member_end=link_end(self.parent, member),
            made="" if made else " IS NOT NULL",
        ).rstrip()

    def _forgotten(self, stage: str) -> str:
        if not self.ours:
            return ""
        return sql(
            "links_forgotten",
            stage=stage,
            links_name=literal(self._links.table),
            staged_end=link_end(self.own, f"s.{self.own.staged}"),
            owner_end=link_end(self.own, "d.owner"),
            member_end=link_end(self.parent, "d.member"),
        )

    def _recorded(self, added: str, asked: str, *, stood: str) -> str:
        if not self.ours:
            return ""
        owner, member = quoted(self._links.owner), quoted(self._links.member)
        return sql(
            "links_recorded",
            added=added,
            asked=asked,
            stood=stood,
            links_name=literal(self._links.table),
            added_owner=link_end(self.own, f"c.{owner}"),
            added_member=link_end(self.parent, f"c.{member}"),
            asked_owner=link_end(self.own, "d.owner"),
            asked_member=link_end(self.parent, "d.member"),
        )

    def _unrecorded(self, rows: str, condition: str, owner: str, *, member: str | None = None) -> str:
        if not self.ours:
            return ""
        return sql(
            "links_unrecorded",
            rows=rows,
            condition=condition,
            owner_end=link_end(self.own, owner),
            links_name=literal(self._links.table),
            same_member="" if member is None else f" AND k.member = {link_end(self.parent, member)}",
        )


def _part(names: dict[str, str], *wanted: str) -> dict[str, str]:
    return {name: names[name] for name in wanted}
