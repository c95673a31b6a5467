"""The sixteen incidents of the handbook: made on a running stack, seen by `syncline status`, mended as its table says."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest
import yaml

from tests.acceptance.conftest import CHECKOUT, clone, started
from tests.kit.faulty_http import Answer
from tests.kit.pages import marked_lines, replace_lines
from tests.kit.ports import free_port
from tests.kit.vector_services import EmbeddingServer

if TYPE_CHECKING:
    from tests.acceptance.conftest import RunningStack

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1800)]

PAGE: Final = CHECKOUT / "docs" / "operations" / "incidents.md"
_HEAD: Final = (
    "| Incident | Seen by | It says | After | Mended by |",
    "|---|---|---|--:|---|",
)
_BY: Final = "`syncline status`"
_NODE: Final = "INSERT INTO write_nodes (id, concept) VALUES ('a', 'one'), ('b', 'two'), ('c', 'three')"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A stack, a graph of the incident's own, and what a test may do that no command does."""

    stack: "RunningStack"
    graph: str
    embedding: EmbeddingServer
    sessions: list["Session"]

    def on_write(self, sql: str) -> None:
        self.stack.sql("write_dsn", self.graph, sql)

    def on_graph(self, sql: str) -> None:
        self.stack.sql("graph_dsn", self.graph, sql)

    def session(self, store: str, *statements: str) -> None:
        """Leave a session open after these statements."""
        self.sessions.append(Session(self.stack, store, self.graph, statements))

    def status(self) -> dict[str, Any]:
        """Its line in the list of all graphs."""
        listed = json.loads(self.stack.sh("syncline status --json || true"))
        return next(one for one in listed if one["graph"] == self.graph)

    def status_alone(self) -> str:
        return str(json.loads(self.stack.sh(f"syncline status {self.graph} --json || true"))["standing"])

    def worker(self) -> int:
        children = self.stack.record()["children"]
        assert isinstance(children, dict)
        return int(children["worker"]["pid"])


class Session:
    """A session of somebody else, in an event loop that stands still but when it is used."""

    def __init__(self, stack: "RunningStack", store: str, schema: str, statements: tuple[str, ...]) -> None:
        stores = stack.record()["stores"]
        assert isinstance(stores, dict)
        self._loop = asyncio.new_event_loop()
        self._connection = self._loop.run_until_complete(
            asyncpg.connect(stores[store], server_settings={"search_path": schema})
        )
        for statement in statements:
            self._loop.run_until_complete(self._connection.execute(statement))
        self.pid = self._connection.get_server_pid()

    def close(self) -> None:
        self._connection.terminate()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


@dataclass(frozen=True, kw_only=True)
class Incident:
    """What happens, what `status` has to say, and the commands that mend it, as the table shows them.

    A fix that begins with `write-db:` or `graph-db:` is SQL; one in parentheses is what somebody does elsewhere.
    """

    name: str
    says: str
    happens: Callable[[Scene], None]
    mended: tuple[str, ...]
    elsewhere: Callable[[Scene], None] = lambda scene: None
    """Does what stands in parentheses."""


def wrong_key(scene: Scene) -> None:
    scene.embedding.failing = Answer(401, b'{"error": {"message": "wrong key"}}')
    scene.on_write(_NODE)


def away(scene: Scene) -> None:
    scene.embedding.failing = Answer(503, b"{}")
    scene.on_write(_NODE)


def limited(scene: Scene) -> None:
    scene.embedding.failing = Answer(429, b"{}", headers={"Retry-After": "5"})
    scene.on_write(_NODE)


def answers_again(scene: Scene) -> None:
    scene.embedding.failing = None


def frozen(scene: Scene) -> None:
    os.kill(scene.worker(), signal.SIGSTOP)
    scene.on_write(_NODE)
    scene.stack.sh(f"syncline sync {scene.graph} --no-wait || true")


def thawed(scene: Scene) -> None:
    os.kill(scene.worker(), signal.SIGCONT)


def begun(scene: Scene, rows: int = 20_000) -> None:
    """A run by hand that takes long."""
    scene.on_write(
        f"INSERT INTO write_nodes (id, concept) SELECT i, 'c' || i FROM generate_series(1, {rows}) i"
    )
    scene.stack.sh(
        "temporal workflow start --task-queue syncline --type SyncGraph --workflow-id sync-graph/world"
        f""" --input '{{"graph": "{scene.graph}", "batch_rows": 100}}' --execution-timeout 3h""".replace(
            "sync-graph/world", f"sync-graph/{scene.graph}"
        )
    )


def paused(scene: Scene) -> None:
    begun(scene)
    run = f"--workflow-id sync-graph/{scene.graph} --activity-id"
    for _ in range(60):
        described = scene.stack.temporal("workflow", "describe", "--workflow-id", f"sync-graph/{scene.graph}")
        assert isinstance(described, dict)
        pending = described.get("pendingActivities") or []
        if pending and pending[0]["activityType"]["name"] == "sync_cycle":
            assert pending[0]["activityId"] == "2"
            break
        time.sleep(0.3)
    scene.stack.sh(f"temporal activity pause {run} 2 --reason 'OPS-12'")


_CONFIG: Final = "temporal task-queue config set --task-queue syncline --task-queue-type activity"


def braked(scene: Scene) -> None:
    scene.stack.sh(f"{_CONFIG} --queue-rps-limit 0 --queue-rps-limit-reason OPS-12")
    time.sleep(6)  # until workers know
    scene.on_write(_NODE)
    scene.stack.sh(f"syncline sync {scene.graph} --no-wait || true")


def composed(entry: str) -> str:
    return f"syncline graph set world --composition '{{\"sync\": {entry}}}' --reason OPS-12"


def without_provider(missing: str) -> Callable[[Scene], None]:
    def happens(scene: Scene) -> None:
        entry = f'{{"provider": "acme-sync", "on_missing": "{missing}"}}'
        scene.stack.sh(composed(entry).replace(" world ", f" {scene.graph} "))
        scene.stack.sh(f"syncline sync {scene.graph} || true")

    return happens


def locked(scene: Scene) -> None:
    scene.session(
        "graph_dsn",
        f"SELECT pg_advisory_lock(hashtextextended('syncline:{scene.graph}', 0))",
    )
    for _ in range(3):
        scene.stack.sh(f"syncline schedule trigger {scene.graph} || true")
        time.sleep(3)


def open_transaction(scene: Scene) -> None:
    scene.session("write_dsn", "BEGIN", "INSERT INTO write_nodes (id, concept) VALUES ('open', 'x')")
    scene.on_write(_NODE)
    # As its Schedule would: `status` tells of a transaction that is open for five seconds.
    scene.stack.sh(f"syncline sync {scene.graph}")


INCIDENTS: Final = (
    Incident(
        name="The graph-db refuses rows (a constraint was added)",
        says="refused",
        happens=lambda scene: (
            scene.on_graph("ALTER TABLE nodes ADD CONSTRAINT brief CHECK (length(concept) < 4)"),
            scene.on_write(_NODE),
        )[0],
        mended=(
            "graph-db: ALTER TABLE nodes DROP CONSTRAINT brief",
            "syncline failures retry world --all --reason OPS-12",
            "syncline sync world",
        ),
    ),
    Incident(
        name="A column of the write-db was dropped",
        says="failed",
        happens=lambda scene: (
            scene.on_write("ALTER TABLE write_nodes DROP COLUMN definition"),
            scene.on_write(_NODE),
        )[0],
        mended=("write-db: ALTER TABLE write_nodes ADD COLUMN definition text", "syncline sync world"),
    ),
    Incident(
        name="A column of the graph-db was renamed",
        says="failed",
        happens=lambda scene: (
            scene.on_graph("ALTER TABLE nodes RENAME COLUMN definition TO meaning"),
            scene.on_write(_NODE),
        )[0],
        mended=("graph-db: ALTER TABLE nodes RENAME COLUMN meaning TO definition", "syncline sync world"),
    ),
    Incident(
        name="A row's parent does not come",
        says="parked",
        happens=lambda scene: scene.on_write(
            "INSERT INTO write_nodes (id, concept, parent_id) VALUES ('child', 'x', 'parent')"
        ),
        mended=("write-db: INSERT INTO write_nodes (id, concept) VALUES ('parent', 'y')",),
    ),
    Incident(
        name="A transaction of the write-db stays open",
        says="held back",
        happens=open_transaction,
        mended=(
            "write-db: SELECT pg_terminate_backend(4711)",
            "syncline sync world",
        ),
    ),
    Incident(
        name="The embedding service refuses the key (401)",
        says="vectors delayed",
        happens=wrong_key,
        mended=("(the right key)", "syncline sync world"),
        elsewhere=answers_again,
    ),
    Incident(
        name="The embedding service is away (503)",
        says="vectors delayed",
        happens=away,
        mended=("(it is back)", "syncline sync world"),
        elsewhere=answers_again,
    ),
    Incident(
        name="The embedding service limits the rate (429)",
        says="rate limited",
        happens=limited,
        mended=("(it answers again)", "syncline sync world"),
        elsewhere=answers_again,
    ),
    Incident(
        name="The embedding service refuses a text",
        says="refused",
        happens=lambda scene: scene.on_write(
            "INSERT INTO write_nodes (id, concept) VALUES ('a', 'forbidden')"
        ),
        mended=("write-db: UPDATE write_nodes SET concept = 'allowed'",),
    ),
    Incident(
        name="The only worker is frozen or gone",
        says="no worker",
        happens=frozen,
        mended=("(it is thawed, or another is started)",),
        elsewhere=thawed,
    ),
    Incident(
        name="No worker has the provider (`on_missing: hold`)",
        says="held",
        happens=without_provider("hold"),
        mended=(composed('{"provider": "default"}'), "syncline sync world"),
    ),
    Incident(
        name="No worker has the provider (fallback)",
        says="fallback",
        happens=without_provider("fallback"),
        mended=(composed('{"provider": "default"}'), "syncline sync world"),
    ),
    Incident(
        name="A foreign session holds the graph's lock",
        says="blocked",
        happens=locked,
        mended=(
            "graph-db: SELECT pg_terminate_backend(4711)",
            "syncline schedule trigger world",
        ),
    ),
    Incident(
        name="The Schedule was paused and forgotten",
        says="paused",
        happens=lambda scene: (
            scene.stack.sh(
                f"temporal schedule toggle --schedule-id sync-graph/{scene.graph} --pause --reason OPS-12"
            ),
            scene.on_write(_NODE),
        )[1],
        mended=("syncline schedule resume world", "syncline sync world"),
    ),
    Incident(
        name="A cycle of a run by hand was paused by `temporal activity pause`",
        says="halted",
        happens=paused,
        mended=("temporal activity unpause --workflow-id sync-graph/world --activity-id 2",),
    ),
    Incident(
        name="The task queue was limited by `temporal task-queue config set`",
        says="halted",
        happens=braked,
        mended=(f"{_CONFIG} --queue-rps-limit default",),
    ),
)


@pytest.fixture(scope="module")
def embedding() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        server.refuses = lambda text: "forbidden" in text
        yield server


@pytest.fixture(scope="module")
def stack(embedding: EmbeddingServer, wait_until: Callable[..., None]) -> "Iterator[RunningStack]":
    """A stack whose worker asks our embedding service."""
    declared = yaml.safe_load((CHECKOUT / "temporal-dev.yaml").read_text())
    for graph in declared["graphs"].values():
        graph.pop("sample", None)
    declared["worker"]["settings"] |= {
        "SYNCLINE_EMBEDDING": "openai",
        "SYNCLINE_EMBEDDING_URL": embedding.url,
        "SYNCLINE_EMBEDDING_MODEL": "m",
        "SYNCLINE_EMBEDDING_DIMENSIONS": embedding.dimensions,
    }
    with clone() as folder:
        (folder / "temporal-dev.yaml").unlink()
        (folder / "temporal-dev.yaml").write_text(yaml.safe_dump(declared))
        with started(folder, (free_port(), free_port()), wait_until) as running:
            yield running


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Incident -> its line. They are recorded if all were played; the others stay."""
    lines: dict[str, str] = {}
    yield lines
    if request.config.getoption("--record-proofs") is not None:
        old = marked_lines(PAGE, "proof:incidents")[len(_HEAD) :]
        kept = {line.split("|")[1].strip(): line for line in old} | lines
        written = [kept[one.name] for one in INCIDENTS if one.name in kept]
        replace_lines(PAGE, "proof:incidents", [*_HEAD, *written])


@pytest.mark.parametrize("number", range(len(INCIDENTS)), ids=lambda number: INCIDENTS[number].name)
def test_incident_is_seen_and_mended(
    number: int, stack: "RunningStack", embedding: EmbeddingServer, table: dict[str, str]
) -> None:
    """`status` is right while it lasts, and `ok` after the commands of the table; no other graph says otherwise."""
    incident, graph = INCIDENTS[number], f"incident{number}"
    stack.sh(f"syncline graph add {graph} --every-seconds 10 --reason 'an incident'")
    scene = Scene(stack=stack, graph=graph, embedding=embedding, sessions=[])
    until(scene, "ok", 60)
    try:
        began = time.monotonic()
        incident.happens(scene)
        seen = until(scene, incident.says, 120)
        took = time.monotonic() - began
        if incident.says != "paused":
            assert seen["findings"][0]["reason"]
            assert seen["findings"][0]["next"]
        assert scene.status_alone() == incident.says
        for fix in incident.mended:
            mend(scene, incident, fix)
        until(scene, "ok", 180)
        print(f"{incident.name}: {incident.says} after {took:.0f} s", flush=True)  # noqa: T201
        fixes = "; ".join(fix if fix.startswith("(") else f"`{fix}`" for fix in incident.mended)
        table[incident.name] = f"| {incident.name} | {_BY} | `{incident.says}` | {took:.0f} s | {fixes} |"
    finally:
        incident.elsewhere(scene)
        for session in scene.sessions:
            with suppress(Exception):
                session.close()
        stack.sh(f"{_CONFIG} --queue-rps-limit default")
        stack.sh(f"syncline graph archive {graph} --reason 'it is over'")


def mend(scene: Scene, incident: Incident, fix: str) -> None:
    """Do what a fix says, for the scene's graph."""
    if fix.startswith("("):
        incident.elsewhere(scene)
    elif fix.startswith(("write-db: ", "graph-db: ")):
        side, _, sql = fix.partition(": ")
        for session in scene.sessions:
            assert str(session.pid) in json.dumps(scene.status()["findings"]) or incident.says == "blocked"
            sql = sql.replace("4711", str(session.pid))
        (scene.on_write if side == "write-db" else scene.on_graph)(sql)
    else:
        words = fix.replace("-world", f"-{scene.graph}").replace("/world", f"/{scene.graph}")
        scene.stack.sh(f"{words.replace(' world', f' {scene.graph}')} || true", timeout=180)


def until(scene: Scene, state: str, seconds: float) -> dict[str, Any]:
    """Ask `syncline status` until it says so, and return its answer."""
    deadline, said, found = time.monotonic() + seconds, "", dict[str, Any]()
    while said != state:
        found = scene.status()
        said = found["standing"]
        reasons = [finding["reason"] for finding in found["findings"]]
        assert time.monotonic() < deadline, f"wanted {state}, but status says {said}: {reasons}"
        if said != state:
            time.sleep(0.5)
    return found
