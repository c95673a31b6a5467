"""What `doctor` says of the embedding service: budgets that are spent, and a limit that is reached."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from syncline.control.graphs import GraphChanges, GraphDraft
from syncline.control.services import Services
from syncline.control.vector_rules import VectorRules
from syncline.operator.health.check import Check, CheckStatus
from syncline.operator.health.examine import examine
from syncline.settings import Settings
from tests.kit.faulty_http import Answer, FaultyServer

SPENT = """
INSERT INTO syncline.embedding_days (day, scope, name, tokens, held, open)
SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date, 'graph', id::text, 4, 3, 1 FROM syncline.graphs
"""


async def checks(services: Services) -> dict[str, Check]:
    found = await examine(services, identity="w", namespace="n", asked_at=datetime.now(UTC))
    return {check.name: check for check in found.checks}


@pytest.mark.parametrize("headers", [{"retry-after": "40"}, {}], ids=["a pause", "a quota"])
async def test_budgets_that_are_spent_are_named_and_a_limit_is_no_wrong_setting(
    new_database: Callable[..., str], tmp_path: Path, headers: dict[str, str]
) -> None:
    busy = Answer(429, b'{"error": {"message": "slow down"}}', headers=headers)
    with FaultyServer(busy) as server:
        settings = Settings.model_validate(
            {
                "write_dsn": SecretStr(new_database()),
                "graph_dsn": SecretStr(new_database()),
                "qdrant_path": tmp_path,
                "embedding": "openai",
                "embedding_url": server.url,
            }
        )
        async with Services.open(settings) as services:
            await services.prepare_control()
            await services.graphs.add(GraphDraft(slug="kg"), prepare=services.prepare_graph)
            found = await checks(services)
            assert "embedding: budgets" not in found
            assert found["embedding"].status is CheckStatus.FAIL
            assert "slow down" in found["embedding"].found
            assert found["embedding"].fix is not None
            assert "_API_KEY" not in found["embedding"].fix
            assert "SYNCLINE_EMBEDDING_REQUESTS_PER_MINUTE" in found["embedding"].fix

            await services.graphs.update("kg", GraphChanges(vectors=VectorRules(tokens_per_day=7)))
            assert (await checks(services))["embedding: budgets"].status is CheckStatus.OK
            async with services.control.driver() as connection:
                await connection.execute(SPENT)
            spent = (await checks(services))["embedding: budgets"]
            assert spent.status is CheckStatus.WARN
            assert spent.found == "graph 'kg' has used 4 of its 7 tokens for today, and 3 are held"
            assert "syncline graph set GRAPH --tokens-per-day N" in str(spent.fix)
