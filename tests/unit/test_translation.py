"""What Temporal is told of an error: its type, whether a retry helps, and when."""

from datetime import timedelta

import pytest

from activities.errors import translated
from syncline.errors import ProviderBlocked, ProviderMisbehaved, ProviderNotReady


@pytest.mark.parametrize(
    ("kind", "seconds", "retried"),
    [(ProviderMisbehaved, None, False), (ProviderBlocked, None, True), (ProviderNotReady, 8.0, True)],
)
def test_an_error_says_its_type_whether_a_retry_helps_and_when(
    kind: type[ProviderMisbehaved], seconds: float | None, retried: bool
) -> None:
    error = kind("acme", distribution="acme 1.0", trouble="none", did="did nothing", do="Nothing to do.")
    error.retry_after_seconds = seconds
    told = translated(error)
    assert (told.message, told.type, told.non_retryable) == (
        "Provider 'acme' of distribution 'acme 1.0' did nothing. Nothing to do.",
        kind.__name__,
        not retried,
    )
    assert told.next_retry_delay == (None if seconds is None else timedelta(seconds=seconds))
