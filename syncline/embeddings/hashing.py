"""The development embedding: hashed words and character trigrams. Offline, deterministic, not semantic."""

import asyncio
import re
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from syncline.embeddings.service import Vectors

_WORD = re.compile(r"\w+")
_TEXT_CHARACTERS = 20_000  # real models cut long texts too; it also bounds the time per text
_WORD_CHARACTERS = 64  # a longer "word" is an identifier or a blob: its start is enough
_TRIGRAM_WEIGHT = 0.5  # all trigrams of a word together, against 1 for the word itself
_KNOWN_WORDS = 50_000
_CHUNK = 512  # texts accumulated at once: bounds the scratch memory to a few megabytes
_INLINE_CHARACTERS = 20_000  # about 10 ms of work; more goes to a thread

_Features = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Buckets, and the amount to add to each."""


class DevelopmentEmbedding:
    """Feature hashing: texts that share words, or parts of words, are near each other.

    The same text gives the same vector in every process and on every machine. Only the first 20,000
    characters of a text count. Every vector has length one, that of an empty text included.
    """

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._known: dict[str, _Features] = {}

    @property
    def name(self) -> str:
        return f"development-hash-{self._dimensions}"

    @property
    def dimensions(self) -> int:
        return self._dimensions

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one unit vector per text, in order. Never fails."""
        if sum(len(text) + 1 for text in texts) <= _INLINE_CHARACTERS:
            return self._vectors(texts)
        return await asyncio.to_thread(self._vectors, texts)

    async def close(self) -> None:
        """Forget the words seen."""
        self._known.clear()

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self._dimensions), dtype=np.float32)
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            vectors[start : start + len(chunk)] = self._accumulated(chunk)
        return vectors

    def _accumulated(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        known = self._known
        buckets: list[npt.NDArray[np.int64]] = []
        weights: list[npt.NDArray[np.float64]] = []
        sizes: list[int] = []
        for text in texts:
            size = 0
            for word in _WORD.findall(text[:_TEXT_CHARACTERS].lower()) or ("",):
                features = known.get(word) or self._learned(word)
                buckets.append(features[0])
                weights.append(features[1])
                size += len(features[0])
            sizes.append(size)
        cells = np.repeat(np.arange(len(texts)) * self._dimensions, sizes) + np.concatenate(buckets)
        sums = np.bincount(cells, np.concatenate(weights), minlength=len(texts) * self._dimensions)
        sums = sums.reshape(len(texts), self._dimensions)
        lengths = np.linalg.norm(sums, axis=1)
        # Opposite signs in one bucket can cancel out; cosine similarity needs a direction.
        sums[lengths < 1e-9, 0] = 1.0
        lengths[lengths < 1e-9] = 1.0
        unit: npt.NDArray[np.float64] = sums / lengths[:, np.newaxis]
        return unit

    def _learned(self, word: str) -> _Features:
        head = f"<{word[:_WORD_CHARACTERS]}>"
        trigrams = [head[i : i + 3] for i in range(max(len(head) - 2, 0))]
        # zlib.crc32 is the same everywhere; Python's own hash differs from process to process.
        hashes = np.array(
            [zlib.crc32(part.encode("utf-8", "surrogatepass")) for part in (f"word {word}", *trigrams)],
            dtype=np.int64,
        )
        weights = np.full(len(hashes), _TRIGRAM_WEIGHT / max(len(trigrams), 1) ** 0.5)
        weights[0] = 1.0
        features = (hashes >> 1) % self._dimensions, np.where(hashes & 1, weights, -weights)
        if len(self._known) >= _KNOWN_WORDS:
            self._known.clear()
        if len(word) <= _WORD_CHARACTERS:
            self._known[word] = features
        return features
