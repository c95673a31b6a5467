"""The error hierarchy is drawn as it is, and says of each class whether a retry can help."""

import re

import pytest

from syncline import errors
from syncline import errors as service_errors
from syncline.errors import SynclineError, non_retryable_types

MODULES = {errors.__name__, service_errors.__name__}


def _below(cls: type[SynclineError]) -> list[type[SynclineError]]:
    found = [sub for sub in cls.__subclasses__() if sub.__module__ in MODULES]
    return [each for sub in found for each in (sub, *_below(sub))]


ALL = _below(SynclineError)
_LINE = re.compile(r"^ {4}(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+)(?P<text>.*)$", re.MULTILINE)
DRAWN = {found["name"]: found for found in _LINE.finditer(errors.__doc__ or "")}


def test_the_drawing_shows_every_class_and_no_other() -> None:
    assert set(DRAWN) == {cls.__name__ for cls in ALL} | {"SynclineError"}


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_a_class_is_drawn_below_its_base(cls: type[SynclineError]) -> None:
    names = list(DRAWN)
    depth = len(cls.__mro__) - len(SynclineError.__mro__)
    assert len(DRAWN[cls.__name__]["branch"]) == 4 * depth
    above = [
        name for name in names[: names.index(cls.__name__)] if len(DRAWN[name]["branch"]) == 4 * (depth - 1)
    ]
    assert above[-1] == cls.__mro__[1].__name__


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_what_the_drawing_says_of_retries_is_true(cls: type[SynclineError]) -> None:
    says = DRAWN[cls.__name__]["text"]
    if "retryable" in says:
        assert cls.retryable is ("not retryable" not in says)


def test_the_types_not_to_retry_are_exactly_those_that_say_so() -> None:
    # A store's own base class says nothing: its two subclasses do.
    undecided = {errors.StoreError, errors.VectorStoreError, errors.EmbeddingError}
    told = set(non_retryable_types()) & {cls.__name__ for cls in ALL}
    assert told == {cls.__name__ for cls in ALL if not cls.retryable and cls not in undecided}


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_error_says_what_it_means(cls: type[SynclineError]) -> None:
    assert cls.__doc__
    assert cls.__doc__ != cls.__base__.__doc__


def test_error_message_is_its_problem_and_its_fix() -> None:
    error = errors.ConfigurationError("It is not there.", fix="Put it there.")
    assert (error.problem, error.fix, str(error)) == (
        "It is not there.",
        "Put it there.",
        "It is not there. Put it there.",
    )
    assert errors.InputInvalid("It is not there.").fix is None
    refused = errors.StoreRejected("here", "no such table", sqlstate="42P01")
    assert (refused.problem, refused.store) == ("no such table", "here")
    assert refused.problem in str(refused)
    assert errors.PoolerUnsupported("here").fix
