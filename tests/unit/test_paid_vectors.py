"""Vectors that were paid for and not written are those of one model."""

import numpy as np
import pytest
from pydantic import JsonValue

from syncline.embeddings.openai import OpenAIEmbedding
from syncline.engine.vectors.paid_vectors import PaidVectors


@pytest.mark.parametrize(("task", "known"), [("passage", True), ("query", False)])
def test_vectors_of_a_model_that_is_asked_otherwise_are_not_taken(task: str, *, known: bool) -> None:
    def offered(task: JsonValue) -> OpenAIEmbedding:
        return OpenAIEmbedding("http://localhost:1/v1", "small", 4, body={"input_type": task})

    services = [offered("passage"), offered(task)]
    paid, other = map(PaidVectors, services)
    paid.add(b"hash", np.ones(4, np.float32))
    paid.close()
    assert (other.get(b"hash") is not None) is known
