"""Cases of a parameter: which of them `make test` runs, and which wait for `make test-long` or `make prove`."""

import pytest

__all__ = ["further", "longer"]


def further(*cases: object) -> list[object]:
    """Return these cases for `make prove` alone; they differ from those before them by their values only."""
    return _marked(pytest.mark.proof, cases)


def longer(*cases: object) -> list[object]:
    """Return these cases for `make test-long` alone; those before them take the same road."""
    return _marked(pytest.mark.long, cases)


def _marked(mark: pytest.MarkDecorator, cases: tuple[object, ...]) -> list[object]:
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=mark) for case in cases]
