"""A Temporal dev server of a test's own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.testing import WorkflowEnvironment

from syncline import names
from syncline.devstack.temporal_server import dynamic_config_options, temporal_binary
from syncline.temporal.data_converter import MESSAGES

__all__ = ["start_temporal"]


@asynccontextmanager
async def start_temporal() -> AsyncIterator[WorkflowEnvironment]:
    """Yield a Temporal dev server with our search attributes, on a free port; stop it at the end."""
    declared = (f"{name}={kind}" for name, kind in names.SEARCH_ATTRIBUTES.items())
    environment = await WorkflowEnvironment.start_local(
        data_converter=MESSAGES,
        dev_server_existing_path=str(temporal_binary()),
        dev_server_log_level="error",
        dev_server_extra_args=[
            *(part for item in declared for part in ("--search-attribute", item)),
            *dynamic_config_options(),
        ],
    )
    async with environment:
        yield environment
