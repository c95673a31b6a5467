"""Cases of a parameter: which of them `make test` runs, and which wait for `make prove`."""

import pytest

__all__ = ["further"]


def further(*cases: object) -> list[object]:
    """Return these cases for `make prove` alone; they differ from those before them by their values only."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.proof)
        for case in cases
    ]
