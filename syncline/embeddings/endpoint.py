"""The endpoint of an OpenAI-compatible service: where its requests go, and how it is named in messages."""

from dataclasses import dataclass
from typing import Final

import httpx

__all__ = ["Endpoint", "endpoint_of"]

_PATH: Final = "/embeddings"
_PORTS: Final = {"http": 80, "https": 443}
_AZURE: Final = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where requests go."""

    url: httpx.URL
    place: str
    """Host and port."""

    @property
    def address(self) -> str:
        """Host, port and path: what tells one service from another. Never the query: it may hold a key."""
        return f"{self.place}{self.url.path.removesuffix(_PATH)}".rstrip("/")

    @property
    def key_header(self) -> str:
        """The header in which it takes the API key: `api-key` for Azure, else `Authorization`."""
        azure = self.url.host.endswith(_AZURE) or "api-version" in self.url.params
        return "api-key" if azure else "Authorization"


def endpoint_of(url: str) -> Endpoint:
    """Return the endpoint of a base URL: `/embeddings` is appended to its path, and its query is kept.

    A path that ends in it already is taken as it is. Raises ValueError, with a message that does not quote
    the URL, if no request could be sent there, or if it has user info or a fragment.
    """
    try:
        base = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError("its URL is not an http or https URL") from None
    if base.scheme not in _PORTS or not base.host:
        raise ValueError("its URL is not an http or https URL")
    if base.userinfo or "@" in base.netloc.decode():
        raise ValueError("its URL has a user or password, which would replace the API key")
    if base.fragment or "#" in url:
        raise ValueError("its URL has a fragment (#…), which is never sent")
    path = base.path.rstrip("/")
    whole = base.copy_with(path=path if path.endswith(_PATH) else path + _PATH)
    host = f"[{base.host}]" if ":" in base.host else base.host
    return Endpoint(url=whole, place=f"{host}:{base.port or _PORTS[base.scheme]}")
