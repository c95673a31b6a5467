"""What is between our messages and Temporal: pydantic models as JSON, encoded by a codec if one is named.

A codec encodes every payload on its way to Temporal and decodes it on its way back: inputs, results, signals,
queries, memos, heartbeats, details, and what failures say. Search attributes and ids are never encoded.
"""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import cast

from temporalio.converter import (
    DataConverter,
    PayloadCodec,
)

from syncline.errors import SettingsInvalid
from syncline.failure_converter import EncodedFailureConverter
from syncline.masking import error_text
from syncline.payload_converter import MESSAGES
from syncline.settings import load_payload_codec

__all__ = ["load_data_converter"]

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
