"""Logging: events with fields on stderr, libraries' logs included, in one format, credentials masked."""

import logging
import sys
import threading
import warnings
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Literal, TextIO, cast

import structlog
from pydantic import SecretStr
from structlog.typing import ExcInfo, Processor, WrappedLogger

from syncline.masking import masked, traceback_text
from syncline.tracing import current_trace_id

__all__ = [
    "configure_logging",
    "get_log",
    "log_fields",
    "masked",
    "redacted",
    "sendable",
]

# They log every request or step at INFO.
_TALKATIVE = ("alembic", "httpcore", "httpx")


class _Handler(logging.StreamHandler[TextIO]):
    """Marks our handler, so that reconfiguring replaces it and keeps handlers of other code."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 # logging's name
        """Log in the same format that a record failed; the standard library would print a traceback."""
        if record.name != __name__:
            error = sys.exc_info()[1]
            logging.getLogger(__name__).error(
                "record cannot be logged: logger %s, %s", record.name, type(error).__name__
            )


def get_log() -> structlog.stdlib.BoundLogger:
    """Return the logger; usable before logging is configured."""
    return cast("structlog.stdlib.BoundLogger", structlog.get_logger("syncline"))


def log_fields(**fields: str) -> None:
    """Add these fields to all further log lines of the current task, libraries' lines included."""
    structlog.contextvars.bind_contextvars(**fields)


def configure_logging(level: str, fmt: Literal["console", "json"]) -> None:
    """Send all logs of this process to stderr in one format. A second call replaces the configuration."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_trace_id,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        # Before masking, and as text: a driver's exception may quote its connection URI or a row.
        structlog.processors.ExceptionRenderer(_exception_text),
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
    _take_over_what_python_prints()
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _exception_text(exc_info: ExcInfo) -> str:
    return traceback_text(exc_info[1])


def _take_over_what_python_prints() -> None:
    """Log warnings and uncaught exceptions, which Python would print unmasked."""
    log = logging.getLogger("python")

    def uncaught(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            log.error("interrupted")
            return
        log.critical("uncaught exception", exc_info=error)

    def uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_value is not None:
            thread = found.thread.name if found.thread is not None else "a thread"
            log.critical("uncaught exception in %s", thread, exc_info=found.exc_value)

    def unraisable(found: "sys.UnraisableHookArgs") -> None:
        log.error("%s", found.err_msg or "an exception was ignored", exc_info=found.exc_value)

    def warned(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        _file: TextIO | None = None,
        _line: str | None = None,
    ) -> None:
        log.warning("%s: %s", category.__name__, message, extra={"where": f"{filename}:{lineno}"})

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
    sys.unraisablehook = unraisable
    warnings.showwarning = warned  # type: ignore[assignment] # its last arguments are given by place


def _add_trace_id(
    _: WrappedLogger, __: str, event: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    trace_id = current_trace_id()
    if trace_id is not None:
        event["trace_id"] = trace_id
    return event


def _mask(_: WrappedLogger, __: str, event: MutableMapping[str, object]) -> Mapping[str, object]:
    return cast("Mapping[str, object]", masked(event))


def _renderer(fmt: Literal["console", "json"]) -> Processor:
    if fmt == "json":
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )


_HIDDEN = "**********"


def sendable(key: SecretStr) -> bool:
    """Return whether the key can be an HTTP header value: printable ASCII without surrounding spaces.

    HTTP clients quote an illegal header value in their exception, so it must never reach them.
    """
    value = key.get_secret_value()
    return bool(value) and value.isascii() and value.isprintable() and value == value.strip()


def redacted(text: str, key: SecretStr | None, *, limit: int = 300) -> str:
    """Return the text in one line of at most `limit` characters, with the key masked.

    Servers echo credentials in their error bodies.
    """
    if key is not None and key.get_secret_value():
        text = text.replace(key.get_secret_value(), _HIDDEN)
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
