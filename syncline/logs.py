"""Logs: events with fields, ours and those of libraries in one format, on stderr, without credentials."""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Literal, TextIO, cast

import structlog
from pydantic import SecretBytes, SecretStr
from structlog.typing import Processor, WrappedLogger

from syncline.tracing import current_trace_id

__all__ = ["configure_logging", "get_log", "log_fields", "masked"]

_MASK = "**********"
# Up to the last @ of the word: people put raw @ and / into passwords.
_URI_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]*://[^\s:/@]*):\S*@", re.IGNORECASE)
_KEYWORD = re.compile(r"\b(password|passwd|api[-_]?key|secret|token)=[^\s&;,'\")]+", re.IGNORECASE)
# They tell every request or step at INFO.
_TALKATIVE = ("alembic", "httpcore", "httpx")


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that configuring again replaces it and leaves other people's handlers alone."""


def get_log() -> structlog.stdlib.BoundLogger:
    """Return the log. It may be asked for before logging is configured."""
    return cast("structlog.stdlib.BoundLogger", structlog.get_logger("syncline"))


def log_fields(**fields: str) -> None:
    """Put these fields into every line that the present task logs from now on, libraries' lines included."""
    structlog.contextvars.bind_contextvars(**fields)


def configure_logging(level: str, fmt: Literal["console", "json"]) -> None:
    """Send every log of this process to stderr in one format. Doing it again replaces the configuration."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_trace_id,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        # Before masking, and as text: a driver's exception may quote its connection URI.
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _mask, _renderer(fmt)],
        )
    )
    root = logging.getLogger()
    for previous in [found for found in root.handlers if isinstance(found, _Handler)]:
        root.removeHandler(previous)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def masked(value: object) -> object:
    """Return the value with every secret and every password of a URI replaced; containers are copied."""
    if isinstance(value, str):
        return _KEYWORD.sub(rf"\1={_MASK}", _URI_PASSWORD.sub(rf"\1:{_MASK}@", value))
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, SecretStr | SecretBytes):
        return _MASK
    if isinstance(value, Mapping):
        return {str(key): masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(item) for item in value]
    return masked(str(value))


def _add_trace_id(
    _: WrappedLogger, __: str, event: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    trace_id = current_trace_id()
    if trace_id is not None:
        event["trace_id"] = trace_id
    return event


def _mask(_: WrappedLogger, __: str, event: MutableMapping[str, object]) -> Mapping[str, object]:
    return {key: masked(value) for key, value in event.items()}


def _renderer(fmt: Literal["console", "json"]) -> Processor:
    if fmt == "json":
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
