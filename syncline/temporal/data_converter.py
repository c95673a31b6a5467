"""Data converter: pydantic models as JSON, encoded by a payload codec if one is configured.

A codec encodes every payload sent to Temporal and decodes it when read: inputs, results, signals, queries,
memos, heartbeats, details, and messages of failures. Search attributes and ids are never encoded.
"""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Final, cast

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverter,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
    PayloadCodec,
    PayloadConverter,
)
from temporalio.exceptions import ActivityError, ApplicationError

from syncline.errors import SettingsInvalid, SynclineError
from syncline.masking import error_text
from syncline.messages.base import Message
from syncline.settings import load_payload_codec

__all__ = [
    "MESSAGES",
    "EncodedFailureConverter",
    "MessagePayloadConverter",
    "SentenceFailureConverter",
    "load_data_converter",
]

_CYCLE_FAILED = "CycleFailed"


class SentenceFailureConverter(DefaultFailureConverter):
    """Omits stack frames, and a cause that repeats the message, of errors raised on purpose.

    Their message contains problem and fix; the worker's log has the rest. Otherwise an operator would see
    twenty lines of stack trace first in the Web UI.
    """

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        """Fill the failure from the exception."""
        cause = exception.__cause__
        ends_a_run = isinstance(exception, ApplicationError) and isinstance(cause, ActivityError)
        if not ends_a_run and not _on_purpose(exception):
            super().to_failure(exception, payload_converter, failure)
            return
        kept = exception.__traceback__, exception.__cause__, exception.__suppress_context__
        exception.__traceback__ = None
        if not ends_a_run:  # the cause of that failure is the error that reported it
            exception.__cause__ = None  # which also suppresses the context
        try:
            super().to_failure(exception, payload_converter, failure)
        finally:
            exception.__traceback__, exception.__cause__, exception.__suppress_context__ = kept


class EncodedFailureConverter(SentenceFailureConverter):
    """The same with messages and stack traces of failures encoded by the codec."""

    def __init__(self) -> None:
        """Turn on the encoding of messages and stack traces."""
        super().__init__(encode_common_attributes=True)


def _on_purpose(exception: BaseException) -> bool:
    if isinstance(exception, ApplicationError):
        return exception.type == _CYCLE_FAILED or isinstance(exception.__cause__, SynclineError)
    return isinstance(exception, SynclineError)


_ENCODING: Final = {"encoding": b"json/plain"}


class _MessageJSON(PydanticJSONPlainPayloadConverter):
    """JSON of pydantic models; a `Message` provides its own JSON."""

    def to_payload(self, value: object) -> Payload | None:
        """Return the value as a payload."""
        if isinstance(value, Message):
            return Payload(metadata=_ENCODING, data=value.kept_json())
        return super().to_payload(value)


_JSON: Final = _MessageJSON()
# The SDK makes a converter for each run of a workflow.
_CONVERTERS: Final = tuple(
    _JSON if isinstance(converter, JSONPlainPayloadConverter) else converter
    for converter in DefaultPayloadConverter.default_encoding_payload_converters
)


class MessagePayloadConverter(CompositePayloadConverter):
    """Payload converter of our clients, compatible in both directions with `pydantic_data_converter`."""

    def __init__(self) -> None:
        """Take the SDK's converters, with JSON by pydantic."""
        super().__init__(*_CONVERTERS)


MESSAGES: Final = DataConverter(
    payload_converter_class=MessagePayloadConverter, failure_converter_class=SentenceFailureConverter
)


_NAME = "SYNCLINE_PAYLOAD_CODEC"


def load_data_converter() -> DataConverter:
    """Return the converter of this process, or raise SettingsInvalid if its codec cannot be loaded.

    There is no fallback: Temporal would store unencoded what should be encoded.
    """
    named = load_payload_codec()
    if not named:
        return MESSAGES
    return replace(
        MESSAGES,
        payload_codec=_open_codec(named),
        failure_converter_class=EncodedFailureConverter,
    )


def _open_codec(named: str) -> PayloadCodec:
    module, separator, attribute = named.partition(":")
    if not (separator and module and attribute):
        raise SettingsInvalid(f"{_NAME} is not `module:factory`, such as `acme_codec:open_codec`.")
    try:
        factory = cast("Callable[[], object]", getattr(import_module(module), attribute))
    except Exception as error:  # an import may raise anything
        kind = type(error).__name__
        raise SettingsInvalid(f"{_NAME}: '{module}' has no such factory here ({kind}).") from error
    try:
        codec = factory()
    except Exception as error:
        said = f"{type(error).__name__}: {error_text(error)}"
        raise SettingsInvalid(f"{_NAME}: `{named}` cannot be opened ({said}).") from error
    if not isinstance(codec, PayloadCodec):
        raise SettingsInvalid(
            f"{_NAME}: `{named}` returned {type(codec).__name__}, which is no PayloadCodec."
        )
    return codec
