"""The alias of a collection: made for the generation that readers look at, and never moved."""

from collections.abc import Mapping
from typing import cast

import pytest
import structlog

from syncline.engine.vectors.live_alias import LiveAlias
from syncline.provider import GraphVectors
from syncline.stores.vectors import VectorStore


class _Store:
    """The aliases of a vector store."""

    def __init__(self, **found: str) -> None:
        self.found = dict(found)

    async def aliases(self) -> Mapping[str, str]:
        return dict(self.found)

    async def set_aliases(self, aliases: Mapping[str, str]) -> None:
        self.found.update(aliases)


async def kept(store: _Store, *, generation: int, live: int, created: bool) -> Mapping[str, str]:
    """Return the aliases after those of a generation were kept."""

    async def seen() -> int:
        return live

    vectors = GraphVectors(store=cast(VectorStore, store), prefix="kg_", generation=generation)
    await LiveAlias(structlog.get_logger(), "kg", seen).keep(vectors, "nodes", created=created)
    return store.found


@pytest.mark.parametrize("created", [False, True])
@pytest.mark.parametrize(("live", "expected"), [(1, {}), (2, {"kg_nodes.live": "kg_nodes.2"})])
async def test_only_the_generation_that_readers_look_at_gets_it(
    live: int, expected: Mapping[str, str], *, created: bool
) -> None:
    assert await kept(_Store(), generation=2, live=live, created=created) == expected


@pytest.mark.parametrize("created", [False, True])
async def test_it_is_never_moved(*, created: bool) -> None:
    # A switch is under way: readers are led to the second already, and that is not noted yet.
    led = {"kg_nodes.live": "kg_nodes.2"}
    assert await kept(_Store(**led), generation=1, live=1, created=created) == led
