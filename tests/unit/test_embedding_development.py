"""The development embedding: deterministic, offline, and words that are shared bring texts together."""

import asyncio
import subprocess
import sys
import time

import numpy as np
import pytest

from syncline.embeddings.hashing import DevelopmentEmbedding

TEXTS = ["Republic of Finland", "Finland", "Åland Islands", "日本国 — Japan", "a b\tc\nd", "x" * 100_000]


@pytest.fixture
def service() -> DevelopmentEmbedding:
    return DevelopmentEmbedding(384)


async def cosine(service: DevelopmentEmbedding, one: str, other: str) -> float:
    first, second = await service.embed([one, other])
    return float(first @ second)


async def test_it_is_named_as_what_it_is(service: DevelopmentEmbedding) -> None:
    assert (service.name, service.dimensions) == ("development-hash-384", 384)


@pytest.mark.parametrize("dimensions", [1, 2, 8, 384, 1536])
async def test_every_vector_is_finite_and_of_length_one(dimensions: int) -> None:
    vectors = await DevelopmentEmbedding(dimensions).embed([*TEXTS, "", "   ", "!?", "\ud800"])
    assert vectors.shape == (10, dimensions)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(10), abs=1e-5)


async def test_no_texts_give_no_vectors(service: DevelopmentEmbedding) -> None:
    assert (await service.embed([])).shape == (0, 384)


async def test_the_same_text_gives_the_same_vector_in_another_process_and_in_any_company(
    service: DevelopmentEmbedding,
) -> None:
    program = (
        "import asyncio, sys; from syncline.embeddings.hashing import DevelopmentEmbedding as E;"
        "sys.stdout.buffer.write(asyncio.run(E(384).embed(['Republic of Finland'])).tobytes())"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE, env={"PYTHONHASHSEED": "7"}
    )
    elsewhere, _ = await child.communicate()
    together = await service.embed([*TEXTS * 300, "Republic of Finland"])
    assert elsewhere == together[0].tobytes() == together[-1].tobytes()


async def test_texts_that_share_words_are_nearer_than_texts_that_do_not(
    service: DevelopmentEmbedding,
) -> None:
    text = "a small domesticated cat that catches mice"
    shared = await cosine(service, text, "the domesticated cat sleeps")
    assert shared > await cosine(service, text, "currency of Switzerland") + 0.2
    assert await cosine(service, text, text.upper()) == pytest.approx(1, abs=1e-5)


async def test_texts_that_share_parts_of_words_are_nearer_than_texts_that_do_not(
    service: DevelopmentEmbedding,
) -> None:
    shared = await cosine(service, "domestication", "domesticated")
    assert shared > await cosine(service, "domestication", "switzerland") + 0.1


async def test_more_words_than_it_remembers_change_nothing(
    service: DevelopmentEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await service.embed(TEXTS)
    monkeypatch.setattr("syncline.embeddings.hashing._KNOWN_WORDS", 3)
    assert (await DevelopmentEmbedding(384).embed(TEXTS)).tobytes() == before.tobytes()


async def test_a_big_batch_does_not_hold_the_event_loop(service: DevelopmentEmbedding) -> None:
    texts = [f"word{row % 997} and {row} others of the same kind" for row in range(8_000)] + [
        "long " * 200_000
    ]
    work = asyncio.ensure_future(service.embed(texts))
    # Time that was worked, which does not pass while a loaded machine does something else.
    began, longest, before = time.process_time(), 0.0, time.thread_time()
    while not work.done():
        await asyncio.sleep(0.001)
        longest, before = max(longest, time.thread_time() - before), time.thread_time()
    assert len(await work) == len(texts)
    assert longest < (time.process_time() - began) / 4
