"""A payload codec: AES-256-GCM, with keys by name: they can be changed, and old payloads stay readable."""

import os
from base64 import b64decode
from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

__all__ = ["AesCodec", "open_codec"]

ENCODING = b"binary/encrypted"
_NONCE = 12


class AesCodec(PayloadCodec):
    """Encrypts each payload whole, metadata and all, under the first key; decrypts with the key it names."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Raise ValueError unless there is a key, and each has 32 bytes."""
        if not keys or any(len(key) != 32 for key in keys.values()):
            raise ValueError("give one key or more, each of 32 bytes")
        self._ciphers = {name: AESGCM(key) for name, key in keys.items()}
        self._current = next(iter(keys))

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Return the payloads encrypted."""
        return [self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Return the payloads as they were; what is not encrypted is returned as it is."""
        return [self._decrypted(payload) for payload in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        name, nonce = self._current, os.urandom(_NONCE)
        # The key's name is authenticated with the data.
        sealed = self._ciphers[name].encrypt(nonce, payload.SerializeToString(), name.encode())
        return Payload(metadata={"encoding": ENCODING, "key": name.encode()}, data=nonce + sealed)

    def _decrypted(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        name = payload.metadata["key"].decode()
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise ValueError(f"a payload is encrypted under key '{name}', which is not among the keys here")
        nonce, sealed = payload.data[:_NONCE], payload.data[_NONCE:]
        try:
            return Payload.FromString(cipher.decrypt(nonce, sealed, name.encode()))
        except InvalidTag:
            raise ValueError(f"a payload under key '{name}' was changed, or the key was") from None


def open_codec() -> AesCodec:
    """Return the codec of SYNCLINE_AES_KEYS: `name:base64,name:base64`, the one to encrypt with first."""
    keys = {}
    for item in os.environ.get("SYNCLINE_AES_KEYS", "").split(","):
        name, separator, key = item.strip().partition(":")
        if not separator:
            raise ValueError("SYNCLINE_AES_KEYS must be `name:base64 of 32 bytes`, with commas between keys")
        keys[name] = b64decode(key, validate=True)
    return AesCodec(keys)
