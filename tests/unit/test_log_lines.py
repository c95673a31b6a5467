"""Lines of a worker's log about a graph, in either format, and connection strings without their secrets."""

import pytest

from syncline.cli.logs import of_the_graph
from syncline.stores.dsn import without_password

LOG = """\
starting
2026-11-30T10:00:00.1Z [info     ] cycle ended                    graph=world rows=3
2026-11-30T10:00:01Z [info     ] cycle ended                    graph=world-2 rows=3
2026-11-30T10:00:02Z [error    ] cycle failed                   graph='world/shadow' rows=3
Traceback (most recent call last):
  ValueError
2026-11-30T10:00:03Z [info     ] worker ready                   task_queue=world
{"graph": "world", "event": "cycle ended", "timestamp": "2026-11-30T10:00:04Z"}
{"graph": "worlds", "event": "about graph=world", "timestamp": "2026-11-30T10:00:05Z"}
"""


def test_of_the_graph_yields_its_entries_with_their_tracebacks() -> None:
    found = list(of_the_graph(LOG.splitlines(keepends=True), "world"))
    assert [at.second for at, _ in found] == [0, 2, 4]
    assert found[1][1].splitlines()[1:] == ["Traceback (most recent call last):", "  ValueError"]


@pytest.mark.parametrize(
    ("dsn", "told"),
    [
        (
            "postgresql://me:s3cret@db.example:5433/shop",
            {"host=db.example", "port=5433", "user=me", "dbname=shop"},
        ),
        ("host=/run/pg user='a b' password='s3cret'", {"host=/run/pg", "user='a b'"}),
        (
            "postgresql://me@h/d?sslmode=require&sslpassword=s3cret&options=-cstatement_timeout%3D5",
            {"sslmode=require", "options='-cstatement_timeout=5 -csearch_path=kg'"},
        ),
    ],
)
def test_without_password_keeps_all_but_secrets(dsn: str, told: set[str]) -> None:
    string = without_password(dsn, options="-csearch_path=kg")
    assert "s3cret" not in string
    assert [part for part in told if part not in string] == []
