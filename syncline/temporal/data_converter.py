"""What is between our messages and Temporal: pydantic models as JSON, encoded by a codec if one is named.

A codec encodes every payload on its way to Temporal and decodes it on its way back: inputs, results, signals,
queries, memos, heartbeats, details, and what failures say. Search attributes and ids are never encoded.
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
    """Leaves out the frames, and the cause that says the same, of what is raised on purpose.

    Its message says what happened and what to do; the worker's log has the rest. An operator who reads a
    failure in the Web UI would else read twenty lines of our files first.
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
        if not ends_a_run:  # the cause of which says who reported it
            exception.__cause__ = None  # which also suppresses the context
        try:
            super().to_failure(exception, payload_converter, failure)
        finally:
            exception.__traceback__, exception.__cause__, exception.__suppress_context__ = kept


class EncodedFailureConverter(SentenceFailureConverter):
    """The same where a codec encodes what failures say."""

    def __init__(self) -> None:
        """Have messages and stack traces encoded."""
        super().__init__(encode_common_attributes=True)


def _on_purpose(exception: BaseException) -> bool:
    if isinstance(exception, ApplicationError):
        return exception.type == _CYCLE_FAILED or isinstance(exception.__cause__, SynclineError)
    return isinstance(exception, SynclineError)


_ENCODING: Final = {"encoding": b"json/plain"}


class _MessageJSON(PydanticJSONPlainPayloadConverter):
    """JSON of pydantic models; a message of ours gives its own."""

    def to_payload(self, value: object) -> Payload | None:
        """Return the value as a payload."""
        if isinstance(value, Message):
            return Payload(metadata=_ENCODING, data=value.kept_json())
        return super().to_payload(value)


class MessagePayloadConverter(CompositePayloadConverter):
    """The converter of our clients. It reads what `pydantic_data_converter` wrote, and the reverse."""

    def __init__(self) -> None:
        """Take the SDK's converters, with JSON by pydantic."""
        json = _MessageJSON()
        super().__init__(
            *(
                json if isinstance(converter, JSONPlainPayloadConverter) else converter
                for converter in DefaultPayloadConverter.default_encoding_payload_converters
            )
        )


MESSAGES: Final = DataConverter(
    payload_converter_class=MessagePayloadConverter, failure_converter_class=SentenceFailureConverter
)


_NAME = "SYNCLINE_PAYLOAD_CODEC"


def load_data_converter() -> DataConverter:
    """Return the converter of this process, or raise SettingsInvalid if its codec cannot be had.

    Nobody goes on without: what should be encoded would be kept by Temporal as it is.
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
    except Exception as error:  # whatever an import raises
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
