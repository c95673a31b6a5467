"""Positions: what a standby that lags looks like, and what is another past even there."""

import pytest

from syncline.engine.position import Known, Position
from syncline.engine.render.statements import DELETES, Cursor
from syncline.engine.state import Ledger, RunProgress

HERE = "7/1/16384"
POSITION = Position(branch="b", number=5, token="t")


def known(branch: str | None, number: int | None, token: str | None) -> Known:
    return Known(branch=branch, number=number, token=token, cleared_below=0)


@pytest.mark.parametrize(
    ("cluster", "horizon", "told", "lags", "contradicted"),
    [
        (HERE, 100, known("b", 5, "t"), False, False),
        (HERE, 99, known("b", 5, "t"), True, False),
        (HERE, 100, known("b", 4, None), True, True),
        (HERE, 100, known(None, None, None), True, True),
        # A branch that another reader's rescan began is later than that token.
        (HERE, 100, known("a", 4, None), True, True),
        (HERE, 100, known("b", 5, "another"), False, True),
        (HERE, 100, known("a", 6, None), False, True),
        (HERE, 100, None, False, False),
        ("7/2/16384", 99, known("b", 4, None), False, True),
        ("8/1/16384", 99, None, False, True),
    ],
)
def test_standby_may_lag(
    cluster: str, horizon: int, told: Known | None, lags: bool, contradicted: bool
) -> None:
    ledger = Ledger(
        write_cluster=HERE,
        behind_since=None,
        progress=RunProgress(run_id="r"),
        cursors={"nodes": Cursor(xid=100), DELETES: Cursor(xid=90)},
        released=frozenset(),
        requeued=False,
        retries=False,
        outbox=False,
        outbox_due=False,
        reader="r",
        position=POSITION,
    )
    assert ledger.may_be_ahead_of(cluster, horizon, told) is lags
    assert (ledger.foreign_to(cluster, 200, told) is not None) is contradicted
