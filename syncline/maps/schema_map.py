"""Schema map: all table maps of a graph."""

from collections.abc import Collection, Iterator, Sequence
from typing import Annotated

from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from syncline.errors import InputInvalid
from syncline.maps.forms import STRICT, Keyed, Name
from syncline.maps.into import completed
from syncline.maps.rules import faults_of
from syncline.maps.table_map import TableMap
from syncline.quoting import shown

__all__ = ["SchemaMap"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SchemaMap:
    """All tables of a graph, parents before children. Raises ValueError if they contradict each other."""

    name: Name
    """Name of the map."""
    tables: Annotated[tuple[TableMap, ...], Keyed("name")]
    """The tables, parents before children."""

    def __post_init__(self) -> None:
        """Check what a wrong map would otherwise show only at its first batch, or never."""
        object.__setattr__(self, "tables", completed(self.tables))
        faults = faults_of(self.tables)
        if faults:
            said = "\n".join(str(fault) for fault in faults)
            raise PydanticCustomError("map", "{said}", {"said": said})

    def __iter__(self) -> Iterator[TableMap]:
        return iter(self.tables)

    def __getitem__(self, name: str) -> TableMap:
        return next(table for table in self.tables if table.name == name)

    @property
    def filled(self) -> Sequence[str]:
        """The tables of the graph-db that are written, each once."""
        names: dict[str, None] = {}
        for table in self.tables:
            names |= dict.fromkeys([table.target, *(links.table for links in table.links)])
            if table.stats is not None and table.stats.table is not None:
                names[table.stats.table] = None
        return list(names)

    def chosen(self, names: Collection[str] | None) -> Sequence[TableMap]:
        """Return the named tables, all if None, in order; raise InputInvalid for an unknown name."""
        known = {table.name for table in self.tables}
        unknown = sorted(set(names or ()) - known)
        if unknown:
            named = ", ".join(shown(name) for name in unknown[:10])
            raise InputInvalid(f"No table {named} is synced. Known: {', '.join(sorted(known))}.")
        return [table for table in self.tables if names is None or table.name in names]
