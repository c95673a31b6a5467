"""The name of a session that holds a graph's lock."""

from datetime import UTC, datetime

import pytest

from syncline.engine.lock import HolderName, holder_name_sql
from syncline.messages.base import LockHolder

RUN = "0198f7c2-5d1e-7b7c-9a38-5b1f0c0ffee0"
NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    ("when", "since"),
    [
        (" 01-02 03:00Z", datetime(2026, 1, 2, 3, 0, tzinfo=UTC)),
        (" 12-31 23:59Z", datetime(2025, 12, 31, 23, 59, tzinfo=UTC)),
        (" 02-29 00:00Z", None),  # neither year has one
        (" 99-99 99:99Z", None),
        (" 01-02 03", None),  # cut off
        ("", None),
    ],
)
def test_a_name_says_which_run_and_attempt_holds_and_since_when(when: str, since: datetime | None) -> None:
    found = HolderName.of(f"syncline {RUN} #12{when}", now=NOW)
    assert found == HolderName(run_id=RUN, attempt=12, since=since)


@pytest.mark.parametrize(
    "name", [None, "", "syncline", "syncline listener", "psql", f"syncline {RUN}", "syncline x' #1"]
)
def test_another_name_says_nothing(name: str | None) -> None:
    assert HolderName.of(name, now=NOW) is None


def test_what_is_no_id_of_a_run_names_no_session() -> None:
    assert holder_name_sql("it's; DROP", 1) is None
    assert holder_name_sql(RUN * 2, 1) is None
    assert len(f"syncline {RUN} #999 11-29 06:40Z") <= 63


def test_a_holder_that_was_recorded_before_is_read() -> None:
    assert LockHolder.model_validate({"pid": 1, "role": "r"}).run_id is None
