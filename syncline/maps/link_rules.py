"""Rules of links: columns of a link table that would be written twice, or by the engine itself."""

from collections.abc import Iterator

from syncline.maps.key_rules import Found
from syncline.maps.table_map import Links, TableMap

__all__ = ["link_faults"]


def link_faults(table: TableMap, *, reserved: str) -> Iterator[Found]:
    """Yield what is wrong with the columns of link tables. Names that begin like `reserved` are the engine's."""
    for number, links in enumerate(table.links):
        for path, problem, fix in _columns(links, reserved):
            yield ("links", number, *path), problem, fix


def _columns(links: Links, reserved: str) -> Iterator[Found]:
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
        if name.startswith(reserved):
            yield path, f"['{name}'] begin with {reserved} like the engine's own columns", "Use another name."
