"""Rules of links: a link table for each array, whose columns are not written twice."""

from collections.abc import Iterator

from syncline.maps.forms import RESERVED
from syncline.maps.key_rules import Found
from syncline.maps.table_map import Links, TableMap

__all__ = ["link_faults"]


def link_faults(table: TableMap) -> Iterator[Found]:
    """Yield what is wrong with link tables and their columns."""
    named = {reference.column for reference in table.optional}
    for number, links in enumerate(table.links):
        if links.table in named:
            yield (
                ("links", number, "table"),
                "each array needs a link table of its own name",
                "Use a link table for each array.",
            )
        named.add(links.table)
        for path, problem, fix in _columns(links):
            yield ("links", number, *path), problem, fix


def _columns(links: Links) -> Iterator[Found]:
    ends = {links.owner: "owner", links.member: "member"}
    if len(ends) < 2:
        yield (
            ("member",),
            f"{links.member} cannot be the owner and the member",
            "Name the two columns of the link table.",
        )
    if links.position in ends:
        yield (
            ("position",),
            f"{links.position} is the {ends[links.position]} of a link, and cannot have its place",
            "Name an integer column of its own, or leave this out.",
        )
    written = ends | ({} if links.position is None else {links.position: "position"})
    for name in links.columns:
        if name in written:
            yield (
                ("columns", name),
                f"{name} is the {written[name]} of a link, which the engine writes",
                "Leave it out of the columns.",
            )
    named = {links.owner: ("owner",), links.member: ("member",)} | {n: ("columns", n) for n in links.columns}
    named |= {} if links.position is None else {links.position: ("position",)}
    for name, path in named.items():
        if name.startswith(RESERVED):
            yield path, f"{name} begins with {RESERVED} like the engine's own columns", "Use another name."
