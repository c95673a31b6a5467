"""Grounds: the tables and rows on which a provider is tried, and what the stores should say afterwards."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from syncline.devstack.postgres import EmbeddedPostgres
from syncline.engine import KNOWLEDGE_GRAPH, SchemaMap
from syncline.testing.conformance import rows
from syncline.testing.one_graph import TestGraph, prepare_templates
from syncline.testing.truth import differences

__all__ = ["KNOWLEDGE", "Ground", "Poison"]


@dataclass(frozen=True, kw_only=True)
class Poison:
    """A row that the graph-db refuses."""

    refused: str
    """On the graph-db: refuse it from now on."""
    row: str
    """On the write-db: it comes."""
    allowed: str
    """On the graph-db: take it."""
    mended: str
    """On the write-db: it changes."""


class Ground(ABC):
    """What is written for each item; scripts for the write-db, if nothing else is said."""

    schema_map: SchemaMap
    locked: str
    """A target table that every cycle of `world` writes, quoted."""
    world: str
    more: str
    ties: str
    removed: str
    children: str
    """Rows whose parents are missing; empty if no table has parents."""
    parents: str
    late: tuple[str, str]
    """A row of a transaction that commits late, and one of another."""
    canary: tuple[str, str] | None
    """A statement whose one argument nobody may tell, after `world`; None: no text is copied."""
    poison: Poison

    @property
    def sources(self) -> Sequence[str]:
        """The tables of the write-db."""
        return list(dict.fromkeys(table.source for table in self.schema_map))

    @property
    def targets(self) -> Sequence[str]:
        """The tables of the graph-db whose rows are counted as written."""
        found = (
            name for table in self.schema_map for name in (table.target, *(x.table for x in table.links))
        )
        return list(dict.fromkeys(found))

    @abstractmethod
    async def prepare(self, server: EmbeddedPostgres) -> tuple[str, str]:
        """Return the names of template databases of both sides; make them once."""

    @abstractmethod
    async def differences(self, graph: TestGraph, *, vectors: bool) -> list[str]:
        """Return a sentence for each difference between what the stores say and should say."""

    @abstractmethod
    async def waits(self, graph: TestGraph) -> bool:
        """Whether a row or a part of it should be parked now."""

    @abstractmethod
    def lost(self, found: Sequence[str]) -> list[str]:
        """Return those of `differences` that a refused row alone does not explain."""


class _Knowledge(Ground):
    """The built-in knowledge graph, and a model of it in Python."""

    schema_map = KNOWLEDGE_GRAPH
    locked = "nodes"
    world, more, ties, removed = rows.WORLD, rows.MORE, rows.TIES, rows.REMOVED
    children, parents = rows.CHILDREN, rows.PARENTS
    late = (
        "INSERT INTO write_nodes (id, concept) VALUES ('late', 'began first')",
        "INSERT INTO write_nodes (id, concept) VALUES ('early', 'committed first')",
    )
    canary = (rows.CANARY_ROW, rows.CANARY)
    poison = Poison(refused=rows.POISON, row=rows.POISONED, allowed="", mended=rows.MENDED)

    async def prepare(self, server: EmbeddedPostgres) -> tuple[str, str]:
        return await prepare_templates(server)

    async def differences(self, graph: TestGraph, *, vectors: bool) -> list[str]:
        return await differences(graph, vectors=vectors)

    async def waits(self, graph: TestGraph) -> bool:  # noqa: ARG002
        return True

    def lost(self, found: Sequence[str]) -> list[str]:
        return [each for each in found if each.startswith("nodes: missing") and "'key': 'bad'" not in each]


KNOWLEDGE: Final[Ground] = _Knowledge()
"""The ground of providers that sync the built-in tables."""
