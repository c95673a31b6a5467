"""The URL of a Qdrant server: what can be meant, and which port."""

from typing import Final
from urllib.parse import SplitResult, urlsplit

import structlog
from pydantic import SecretStr

from syncline.errors import VectorStoreRejected
from syncline.logs import sendable

__all__ = ["server_url"]

_PORTS: Final = {"https": 443, "http": 6333}
_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}
_log = structlog.get_logger(__name__)


def server_url(store: str, url: str, api_key: SecretStr | None) -> tuple[str, str]:
    """Return the URL with its port, and host and port alone.

    Without a port, https means 443. http means Qdrant's own port, as it always has here, and that is logged:
    whoever has a proxy on port 80 has to write it. Raises VectorStoreRejected if URL or key cannot work.
    """
    parts = _checked(store, url)
    if api_key is not None and not sendable(api_key):
        raise VectorStoreRejected(
            store,
            "its API key cannot be sent in an HTTP header (empty, spaces, line breaks or non-ASCII "
            "characters); set SYNCLINE_QDRANT_API_KEY (or api_key in SYNCLINE_QDRANTS) again.",
        )
    if api_key is not None and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        _log.warning("qdrant api key sent unencrypted", store=store, fix="use an https URL")
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    place = f"{host}:{parts.port or _PORTS[parts.scheme]}"
    if parts.port is None and parts.scheme == "http":
        _log.info("qdrant url without a port", store=store, fix=f"http://{place}")
    return parts._replace(netloc=place).geturl(), place


def _checked(store: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise VectorStoreRejected(
            store,
            "its URL is not an http or https URL; set SYNCLINE_QDRANT_URL (or SYNCLINE_QDRANTS).",
        )
    if parts.username is not None or "#" in url:
        raise VectorStoreRejected(
            store,
            "its URL has user info or a fragment, which are never sent; set SYNCLINE_QDRANT_URL (or "
            "SYNCLINE_QDRANTS), and the key as SYNCLINE_QDRANT_API_KEY.",
        )
    return parts
