"""What `make test` leaves to `make test-long` has its core in `make test`."""

import pytest

from tests.kit.long_tests import COLLECTED, Case, not_kept

DEFAULT = Case("a.py", "test_one")


def test_every_long_test_has_its_core_in_the_default_run(request: pytest.FixtureRequest) -> None:
    assert not_kept(request.config.stash[COLLECTED]) == []


@pytest.mark.parametrize(
    "core",
    [
        pytest.param(Case("a.py", "test_core", proof=True), id="is a proof"),
        pytest.param(Case("a.py", "test_core", kept=("a.py::test_one",)), id="is long itself"),
        pytest.param(Case("a.py", "test_renamed"), id="has another name"),
    ],
)
def test_core_that_the_default_run_does_not_have_is_found(core: Case) -> None:
    long = Case("b.py", "test_long", kept=("a.py::test_core",))
    assert not_kept([DEFAULT, core, long]) == ["b.py::test_long: a.py::test_core is not in the default run"]


def test_core_in_the_default_run_is_enough() -> None:
    assert not_kept([DEFAULT, Case("b.py", "test_long", kept=("a.py::test_one",))]) == []


def test_file_that_was_not_collected_is_not_judged() -> None:
    assert not_kept([Case("b.py", "test_long", kept=("a.py::test_one",))]) == []
