"""Messages as JSON, each in the form in which it says that Temporal is to keep it."""

from typing import Final

from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
)

from syncline.failure_converter import SentenceFailureConverter
from syncline.message import Message

__all__ = ["MESSAGES", "MessagePayloadConverter"]

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
