"""What an error of the Qdrant client means: whether to try again, and whether another request may pass."""

import re
from datetime import UTC, datetime, timedelta
from json import JSONDecodeError
from typing import Final

import httpx
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import from_json
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from syncline.errors import VectorStoreError, VectorStoreRejected, VectorStoreUnavailable
from syncline.logs import redacted
from syncline.stores.answer_watch import Unanswered

__all__ = ["CLIENT_ERRORS", "is_missing_collection", "qdrant_failure"]

_RETRYABLE = {408, 425, 429}
_FIXES = {
    401: "Set SYNCLINE_QDRANT_API_KEY (or api_key in SYNCLINE_QDRANTS) to a key of this server.",
    403: "Set SYNCLINE_QDRANT_API_KEY (or api_key in SYNCLINE_QDRANTS) to a key that may write: "
    "to make collections by global access `m`, afterwards `rw` to each of them is enough.",
    404: "The collection is missing (the next cycle creates it), or the URL is not that of a Qdrant server.",
}
_ALL_POINTS = {401, 403}
_NOT_OF_THE_REQUEST = {*_ALL_POINTS, 404}
_FULL = re.compile(r"no space left|disk (is )?full|out of disk|insufficient (storage|disk)", re.IGNORECASE)
_STRICT = re.compile(r"limit exceeded|strict mode", re.IGNORECASE)
_AT_ITS_LIMIT = re.compile(r"max[a-z ]*(vector|payload|points?)[a-z ]*(storage|count|size)", re.IGNORECASE)
_LONGEST_PAUSE = 3600
CLIENT_ERRORS: Final = (
    ApiException,
    QdrantException,
    Unanswered,
    AssertionError,
    RuntimeError,
    TypeError,
    ValueError,
)


class _Status(BaseModel):
    error: str


class _Refusal(BaseModel):
    status: _Status


def qdrant_failure(store: str, place: str, error: Exception, api_key: SecretStr | None) -> VectorStoreError:
    """Map a client error to ours; everything that may be transient is retryable. `place`: host and port."""

    def unavailable(
        what: str, detail: str, *, of_request: bool = False, until: datetime | None = None
    ) -> VectorStoreUnavailable:
        problem = f"{what} ({redacted(detail, api_key)})."
        return VectorStoreUnavailable(store, problem, of_request=of_request, until=until)

    if isinstance(error, Unanswered):
        return VectorStoreUnavailable(store, f"{place}: {error}.")
    if isinstance(error, ResourceExhaustedResponse):
        end = datetime.now(UTC) + timedelta(seconds=min(error.retry_after_s, _LONGEST_PAUSE))
        return unavailable(
            f"it requests a pause of {error.retry_after_s} s (HTTP 429)", str(error), until=end
        )
    if isinstance(error, UnexpectedResponse):
        status, detail = error.status_code or 0, _explanation(error.content)
        if status == httpx.codes.INSUFFICIENT_STORAGE or _FULL.search(detail):
            return unavailable(f"its storage is full (HTTP {status}); give it more, or delete", detail)
        if status in _RETRYABLE or status >= 500:
            return unavailable(f"it answered HTTP {status}", detail, of_request=status >= 500)
        return _rejected(store, status, detail, redacted(detail, api_key))
    cause = error.source if isinstance(error, ResponseHandlingException) else error
    if isinstance(cause, ValidationError | JSONDecodeError | UnicodeDecodeError | AssertionError):
        return unavailable(
            "it sent an answer that is not Qdrant's",
            "check SYNCLINE_QDRANT_URL and any proxy before it",
            of_request=True,
        )
    if isinstance(cause, ValueError | TypeError):
        return VectorStoreRejected(store, f"{redacted(str(cause), api_key)}.", of_request=True)
    timed_out = isinstance(cause, httpx.TimeoutException) and not isinstance(cause, httpx.ConnectTimeout)
    kind = f"no answer in time from {place}" if timed_out else f"not reached at {place}"
    # It was there when the request was sent: a smaller one may pass.
    cut = isinstance(cause, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError)
    slow = isinstance(cause, httpx.ReadTimeout | httpx.WriteTimeout)
    return unavailable(kind, f"{type(cause).__name__}: {cause}".removesuffix(": "), of_request=cut or slow)


def _rejected(store: str, status: int, detail: str, shown: str) -> VectorStoreRejected:
    strict, full = _STRICT.search(detail), _AT_ITS_LIMIT.search(detail)
    if strict or full:
        fix = "Raise this limit in the collection's strict_mode_config."
    else:
        fix = _FIXES.get(status, "The request does not suit this collection or this version of Qdrant.")
    return VectorStoreRejected(
        store,
        f"it answered HTTP {status}: {shown}. {fix}",
        of_request=not full and (bool(strict) or status not in _NOT_OF_THE_REQUEST),
        all_points=bool(full) or (status in _ALL_POINTS and not strict),
    )


def _refusal(content: bytes) -> str | None:
    """Return the message of Qdrant's error body; None if Qdrant did not write it."""
    try:
        return _Refusal.model_validate(from_json(content)).status.error
    except ValueError:
        return None


def _explanation(content: bytes) -> str:
    # Longer than any message shown, so that a key is not cut in half before it is redacted.
    return _refusal(content) or content[:100_000].decode(errors="replace")


def is_missing_collection(error: Exception) -> bool:
    """Return whether the collection does not exist."""
    if isinstance(error, UnexpectedResponse):
        # A 404 that Qdrant did not write comes from a wrong URL, which must not look like an empty store.
        return error.status_code == httpx.codes.NOT_FOUND and _refusal(error.content) is not None
    return isinstance(error, ValueError) and re.fullmatch(r"Collection .+ not found", str(error)) is not None
