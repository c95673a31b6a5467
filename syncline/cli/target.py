"""Which stores and which Temporal a command works on: the settings', or those of the running dev stack."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from syncline.devstack.environment import clear_temporal_environment, stack_settings
from syncline.errors import SettingsInvalid
from syncline.settings import Settings, load_settings, load_task_queue

if TYPE_CHECKING:
    from temporalio.client import Client

    from syncline.devstack.state import RunningStack

__all__ = ["connect_temporal", "find_settings", "find_task_queue", "stack_log"]

_STATE = Path(".syncline")


def find_settings() -> Settings:
    """Return the settings of this process.

    Without SYNCLINE_WRITE_DSN they are those of a `syncline dev` that runs over `./.syncline`, with a hint
    on stderr; without that either, raise SettingsInvalid.
    """
    stack = _stack()
    if stack is None or stack.stores is None:
        try:
            return load_settings()
        except SettingsInvalid as error:
            raise SettingsInvalid(
                f"{error} Or start `syncline dev` here: commands then use its stores."
            ) from None
    _print_stack(stack)
    return stack_settings(stack.stores.as_owner, {"task_queue": stack.task_queue})


def find_task_queue() -> str:
    """Return the task queue of the running dev stack, else that of this process; no store is needed."""
    stack = _temporal_stack()
    return load_task_queue() if stack is None else stack.task_queue


async def connect_temporal(*, prepare: bool = True) -> "Client":
    """Return a client for what TEMPORAL_* points to, or for the running dev stack as `find_settings` does.

    A stack does not come before an address or a profile that somebody has set: that may be production.
    Its namespace is there and has our search attributes; else raise TemporalUnavailable. Without `prepare`,
    which is enough to read, nothing is asked or registered.
    """
    from syncline.temporal.client import connect, register_search_attributes

    stack = _temporal_stack()
    if stack is None or stack.temporal_address is None:
        client = await connect()
    else:
        _print_stack(stack)
        clear_temporal_environment()
        client = await connect(address=stack.temporal_address, namespace=stack.namespace)
    if prepare:
        await register_search_attributes(client)
    return client


def stack_log() -> Path | None:
    """Return the worker's log of the running dev stack that commands use; None without one."""
    from syncline.devstack.state import StateFolder

    stack = _temporal_stack()
    return None if stack is None or stack.temporal_address is None else StateFolder(_STATE).worker_log


def _print_stack(stack: "RunningStack") -> None:
    """Say on stderr that a stack is used, unless a shell asks for completions."""
    if "_SYNCLINE_COMPLETE" not in os.environ:
        typer.secho(f"using the stack in {_STATE} (pid {stack.dev.pid})", err=True, dim=True)


def _temporal_stack() -> "RunningStack | None":
    return None if {"TEMPORAL_ADDRESS", "TEMPORAL_PROFILE"} & os.environ.keys() else _stack()


def _stack() -> "RunningStack | None":
    # What the stack's modules import is in the extra `dev-stack`, which a production environment lacks.
    if "SYNCLINE_WRITE_DSN" in os.environ or not _STATE.exists() or find_spec("psutil") is None:
        return None
    from syncline.devstack.state import StateFolder

    return StateFolder(_STATE).running()
