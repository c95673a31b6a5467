"""What a worker tells of itself: metrics, logs and traces of real cycles, each way that a cycle can go."""

import asyncio
import json
import math
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from temporalio.client import Client, WorkflowFailureError
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from activities.metrics import TemporalMeter, record_cycle, record_verification
from syncline import metrics, names
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.messages.operator import VerifyGraphInput
from syncline.messages.sync import CycleStatus, OpenWriter, SyncResult
from syncline.messages.verification import Found, Relation, RelationKind, Verification
from syncline.provider import NullMeter
from syncline.settings import Settings
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.one_graph import LOCK
from syncline.testing.worker_process import WorkerProcess, environment_of
from tests.kit.faulty_http import Answer, FaultyServer
from tests.kit.ports import free_port
from tests.workflow.test_carried_state import SELDOM, scheduled
from tests.workflow.zoo.installed import install

ROOT = Path(__file__).parents[2]

SECRET = "the concept of a row"
"""A value of a row: no trace may hold it."""


def collected(collector: FaultyServer) -> list[Span]:
    """Return the spans that were exported to it."""
    return [
        span
        for request in collector.requests
        for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def attributes(span: Span) -> dict[str, object]:
    return {item.key: getattr(item.value, str(item.value.WhichOneof("value"))) for item in span.attributes}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A worker that ran each kind of cycle, and all that it told."""

    graphs: dict[str, Graph]
    families: dict[str, Metric]
    lines: Sequence[dict[str, object]]
    spans: Sequence[Span]

    def values(self, name: str, graph: str, **labels: str) -> list[float]:
        """Return the samples of a graph with these labels."""
        wanted = {"graph": self.graphs[graph].slug, **labels}
        samples = self.families[metrics.PREFIX + name].samples
        return [sample.value for sample in samples if wanted.items() <= sample.labels.items()]

    def value(self, name: str, graph: str, **labels: str) -> float:
        """Return the one sample of a graph with these labels."""
        [value] = self.values(name, graph, **labels)
        return value

    def lines_of(self, graph: str) -> list[dict[str, object]]:
        slug = self.graphs[graph].slug
        return [line for line in self.lines if line.get("graph") == slug]


async def run(lab: SyncLab, graph: Graph) -> None:
    with suppress(WorkflowFailureError):  # some are to fail
        await lab.run(graph)


async def play(lab: SyncLab, write: asyncpg.Connection, target: asyncpg.Connection) -> dict[str, Graph]:
    """Run each kind of cycle once, the idle one after one that moved rows."""
    nodes = "INSERT INTO {}.write_nodes (id, concept) VALUES ('a', $1), ('b', 'another')"
    plain = await lab.add_graph("default", prepare=True)
    await write.execute(nodes.format(plain.schema_name), SECRET)
    await run(lab, plain)
    await run(lab, plain)

    fallback = await lab.add_graph("acme-sync", prepare=True)
    await run(lab, fallback)

    raising = await lab.add_graph("acme-sync", prepare=True)
    await target.execute(f"ALTER SCHEMA {raising.schema_name} RENAME TO {raising.schema_name}_gone")
    await run(lab, raising)

    failed = await lab.add_graph("default", prepare=True)
    await write.execute(f"ALTER TABLE {failed.schema_name}.write_nodes DROP COLUMN visibility")
    await run(lab, failed)

    refused = await lab.add_graph("default", prepare=True)
    await target.execute(f"ALTER TABLE {refused.schema_name}.nodes ADD CHECK (concept <> '{SECRET}')")
    await write.execute(nodes.format(refused.schema_name), SECRET)
    await write.execute(
        f"INSERT INTO {refused.schema_name}.write_edges (id, source_node_id, target_node_id, relationship_type)"
        " VALUES ('e', 'b', 'nowhere', 'r')"
    )
    await run(lab, refused)

    held = await lab.add_graph("default", prepare=True)
    await target.execute(f"SET search_path = {held.schema_name}")
    assert await target.fetchval(LOCK)
    await run(lab, held)

    blocked = await lab.add_graph("default", prepare=True, schedule=SELDOM)
    await target.execute(f"SET search_path = {blocked.schema_name}")
    assert await target.fetchval(LOCK)
    runs = await scheduled(lab, blocked)
    for _ in range(2):
        await (await runs.next()).result()

    missing = await lab.add_graph("acme", composition={"sync": {"provider": "acme", "on_missing": "fail"}})
    await run(lab, missing)

    waiting = await lab.add_graph("acme", composition={"sync": {"provider": "acme", "on_missing": "hold"}})
    await run(lab, waiting)

    misbehaving = await lab.add_graph("zoo-wrong")
    await run(lab, misbehaving)

    # Its workflow task fails, as that of a run does whose code has changed.
    await lab.client.start_workflow("Unknown", id="observed-stuck", task_queue=lab.task_queue)
    return {
        "plain": plain,
        "fallback": fallback,
        "raising": raising,
        "failed": failed,
        "refused": refused,
        "held": held,
        "blocked": blocked,
        "missing": missing,
        "waiting": waiting,
        "misbehaving": misbehaving,
    }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(
    postgres_server: EmbeddedPostgres,
    control_template: str,
    temporal_client: Client,
    temporal_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Scene]:
    postgres_server.ensure_database("observed_write")
    postgres_server.psql(f"CREATE DATABASE observed_graph TEMPLATE {control_template}")
    write_dsn, graph_dsn = (postgres_server.dsn(f"observed_{side}") for side in ("write", "graph"))
    metrics_address = f"127.0.0.1:{free_port()}"
    settings = Settings(
        write_dsn=SecretStr(write_dsn), graph_dsn=SecretStr(graph_dsn), task_queue="observed", pool_size=4
    )
    plugins = tmp_path_factory.mktemp("plugins")
    install(plugins, "zoo", wrong="zoo_plugin:Wrong")
    with FaultyServer(Answer()) as collector:
        environment = environment_of(settings, temporal_environment, plugins) | {
            "PYTHONPATH": str(plugins),
            "SYNCLINE_QDRANT_PATH": str(tmp_path_factory.mktemp("qdrant")),
            "SYNCLINE_RECONCILE_SECONDS": "86400",
            "SYNCLINE_METRICS_ADDRESS": metrics_address,
            "SYNCLINE_PROBES": f"127.0.0.1:{free_port()}",
            "SYNCLINE_TRACES_URL": f"{collector.url}/v1/traces",
            # Each workflow task replays the run from its beginning: its trace has to survive that.
            "SYNCLINE_MAX_CACHED_WORKFLOWS": "0",
        }
        write, target = await asyncpg.connect(write_dsn), await asyncpg.connect(graph_dsn)
        async with Services.open(settings) as services:
            numbers = iter(range(100))
            lab = SyncLab(
                client=temporal_client,
                services=services,
                make_worker=lambda *_: pytest.fail("the worker is a process"),
                unique=lambda word: f"observed-{word}-{next(numbers)}",
            )
            # It is there from the start, so that the worker listens at once.
            heard = await lab.add_graph("default", prepare=True, schedule={"every_seconds": 2_592_000})
            async with WorkerProcess.running(ROOT / "worker.py", environment) as worker:
                await worker.logs('"listening"')
                paused = await lab.add_graph(status="paused")
                await temporal_client.execute_workflow(
                    names.RECONCILE_SCHEDULES, id="observed-reconcile", task_queue="observed"
                )
                graphs = {"paused": paused} | await play(lab, write, target)
                await temporal_client.execute_workflow(
                    names.VERIFY_GRAPH,
                    VerifyGraphInput(graph=graphs["plain"].slug),
                    id="observed-verify",
                    task_queue="observed",
                )
                # Capture may have been silent before: while a run was due, or nobody was known to listen.
                await write.execute(
                    f"INSERT INTO {heard.schema_name}.write_nodes (id, concept) VALUES ('h', 'c')"
                )
                text = ""

                async def woken() -> bool:
                    nonlocal text
                    text = await asyncio.to_thread(scrape, metrics_address)
                    return "syncline_triggers{" in text and "temporal_workflow_task_execution_failed{" in text

                await eventually(woken)
                worker.process.send_signal(signal.SIGTERM)
                assert await worker.ended() == 0
        await write.close()
        await target.close()
    schedules = [names.sync_schedule_id(graph.slug) for graph in (paused, heard, graphs["blocked"])]
    for schedule in (*schedules, names.reconcile_schedules_id("observed")):
        await temporal_client.get_schedule_handle(schedule).delete()
    await temporal_client.get_workflow_handle("observed-stuck").terminate()
    yield Scene(
        graphs=graphs,
        families={family.name: family for family in text_string_to_metric_families(text)},
        lines=[json.loads(line) for line in worker.said.splitlines()],
        spans=collected(collector),
    )


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize(
    "metric",
    metrics.DECLARED.values(),
    ids=lambda metric: metric.name,
)
async def test_a_declared_metric_is_served_with_its_type_and_labels(
    scene: Scene, metric: metrics.Metric
) -> None:
    family = scene.families[metric.exposed]
    assert (family.type, family.documentation) == (metric.type, metric.help)
    labels = {frozenset(sample.labels.keys() - {"le"}) for sample in family.samples}
    assert labels == {frozenset([*metric.labels, "service_name"])}


async def test_no_metric_of_ours_is_served_that_is_not_declared(scene: Scene) -> None:
    served = {name.removeprefix(metrics.PREFIX) for name in scene.families if name.startswith(metrics.PREFIX)}
    assert served <= metrics.DECLARED.keys()


async def test_histograms_have_their_declared_buckets(scene: Scene) -> None:
    for metric in (metrics.CYCLE_SECONDS, metrics.RECONCILE_SECONDS):
        bounds = {
            sample.labels["le"] for sample in scene.families[metric.exposed].samples if "le" in sample.labels
        }
        assert {float(bound) for bound in bounds} == {*metric.buckets, float("inf")}


async def test_metrics_tell_each_way_that_a_cycle_can_go(scene: Scene) -> None:
    assert scene.value("cycles", "plain", status="drained", provider="default") == 2
    assert (scene.value("rows", "plain"), scene.value("vectors_upserted", "plain")) == (2, 2)
    assert (scene.value("fallback", "plain"), scene.value("fallback_since_timestamp_seconds", "plain")) == (
        0,
        0,
    )

    assert scene.value("cycles", "fallback", provider=names.FALLBACK_PROVIDER) == 1
    assert scene.value("fallback", "fallback") == 1
    assert scene.value("cycle_errors", "raising", kind="StoreRejected") == 1
    assert scene.value("fallback", "raising") == 1

    assert scene.value("cycles", "failed", status="failed") == 1
    assert scene.value("pending_tables", "failed") == 1
    assert scene.values("last_success_timestamp_seconds", "failed") == []
    assert scene.value("last_success_timestamp_seconds", "plain") > 0

    assert (scene.value("dead_letters", "refused"), scene.value("parked", "refused")) == (1, 1)

    assert scene.value("cycles", "held", status="already_running") == 1
    assert scene.values("parked", "held") == []  # it looked at nothing
    assert scene.values("blocked_timestamp_seconds", "held") == []

    assert scene.value("cycles", "blocked", status="already_running") == 1
    assert scene.value("cycles", "blocked", status="blocked") == 1
    assert scene.value("blocked_timestamp_seconds", "blocked") > 0

    assert scene.value("cycle_errors", "missing", kind="ProviderMissing", retryable="false") == 1
    assert scene.value("graph_interval_seconds", "paused") == 0

    [troubles] = scene.families["syncline_provider_troubles"].samples
    assert (troubles.labels["provider"], troubles.labels["trouble"], troubles.value) == (
        "zoo-wrong",
        "malformed",
        1,
    )
    assert scene.value("cycle_errors", "misbehaving", kind="ProviderInvalid", retryable="false") == 1

    assert scene.value("cycles", "waiting", status="held", provider="acme") == 1
    assert scene.value("held_timestamp_seconds", "waiting") > 0
    # It has seen nothing of the graph, and whoever did last is still right.
    assert scene.values("cycle_timestamp_seconds", "waiting") == []


async def test_metrics_tell_who_listens_and_what_was_heard(scene: Scene) -> None:
    [listening] = scene.families["syncline_listening"].samples
    assert (listening.labels["store"], listening.value) == ("write", 1)
    [heard] = scene.families["syncline_notifications"].samples
    woken = {sample.labels["outcome"]: sample.value for sample in scene.families["syncline_triggers"].samples}
    assert woken.keys() <= {"started", "absent"}
    assert heard.value >= 1


@pytest.mark.parametrize("graph", ["plain", "fallback", "failed", "refused", "held"])
async def test_every_line_of_a_cycle_names_its_graph_its_run_and_its_provider(
    scene: Scene, graph: str
) -> None:
    lines = [line for line in scene.lines_of(graph) if line.get("activity") != names.VERIFY_GRAPH_ACTIVITY]
    assert lines
    for line in lines:
        assert {"graph", "run_id", "provider", "trace_id"} <= line.keys(), line


async def test_a_line_of_the_engine_names_the_run_too(scene: Scene) -> None:
    [failed] = [line for line in scene.lines_of("failed") if line["event"] == "table failed"]
    [ended] = [line for line in scene.lines_of("failed") if line["event"] == "cycle ended"]
    assert (failed["run_id"], failed["provider"]) == (ended["run_id"], "default")
    assert failed["trace_id"] == ended["trace_id"]


async def test_one_trace_leads_from_the_run_to_the_statements(scene: Scene) -> None:
    [first, _] = [line for line in scene.lines_of("plain") if line["event"] == "cycle ended"]
    spans = {span.span_id: span for span in scene.spans if span.trace_id.hex() == first["trace_id"]}

    def path(span: Span) -> tuple[str, ...]:
        above = spans.get(span.parent_span_id)
        return (*(path(above) if above else ()), span.name)

    paths = {path(span) for span in spans.values()}
    assert {at[0] for at in paths} == {"RunWorkflow:SyncGraph"}
    resolving = ("RunWorkflow:SyncGraph", "StartActivity:resolve_provider", "RunActivity:resolve_provider")
    cycling = ("RunWorkflow:SyncGraph", "StartActivity:sync_cycle", "RunActivity:sync_cycle")
    steps = (("capture",), ("stage",), ("apply", "WITH"), ("index", "embed"), ("index", "upsert points"))
    assert {resolving, (*resolving, "SELECT"), *((*cycling, *step) for step in steps)} <= paths

    [cycle] = [span for span in spans.values() if span.name == "RunActivity:sync_cycle"]
    told = attributes(cycle)
    assert told["syncline.graph"] == scene.graphs["plain"].slug
    assert (told["syncline.run_id"], told["syncline.provider"]) == (first["run_id"], "default")
    statements = [str(attributes(span).get("db.statement", "")) for span in spans.values()]
    # Few rows go by one call that takes the statement, many by the statement itself.
    assert any(
        "syncline.try_part" in statement or 'INSERT INTO "nodes"' in statement for statement in statements
    )
    assert any("$1" in statement for statement in statements)


async def test_a_cycle_in_a_room_is_in_the_trace_of_its_run_once(scene: Scene) -> None:
    [failed] = [line for line in scene.lines_of("misbehaving") if line["event"] == "activity failed"]
    told = [span.name for span in scene.spans if span.trace_id.hex() == failed["trace_id"]]
    assert (told.count("RunWorkflow:SyncGraph"), told.count("RunActivity:sync_cycle")) == (1, 1)


async def test_a_refused_row_leaves_its_error_in_the_trace_but_no_value(scene: Scene) -> None:
    refusing = [span for span in scene.spans if span.status.code == Status.STATUS_CODE_ERROR]
    told = [str(event) for span in refusing for event in span.events]
    assert any("CheckViolationError" in event for event in told)
    assert SECRET not in str(scene.spans)
    assert not any(span.status.message for span in scene.spans)


def test_a_collector_that_refuses_is_told_of_once_and_again_when_it_takes() -> None:
    code = """
import sys
from opentelemetry.trace import get_tracer_provider
from activities.tracing import tracing
from syncline.logs import configure_logging
from syncline.tracing import span
configure_logging("INFO", "json")
with tracing(sys.argv[1]):
    for _ in range(3):
        with span("a span of ours"):
            pass
        get_tracer_provider().force_flush()
"""
    with FaultyServer(Answer(status=401), Answer(status=401), Answer()) as collector:
        done = subprocess.run(
            [sys.executable, "-c", code, collector.url],
            cwd=ROOT,
            env={"OTEL_BSP_SCHEDULE_DELAY": "60000"},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["trace export failed", "trace export works again"]
    assert (lines[0]["url"], "401" in lines[0]["problem"]) == (collector.url, True)
    assert len(collector.requests) == 3


def test_without_an_address_for_traces_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys, worker, syncline.engine;"
        "assert 'activities.sync' in sys.modules;"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'opentelemetry']"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.long("test_a_declared_metric_is_served_with_its_type_and_labels")
def test_traces_without_their_packages_are_refused_with_the_command_that_helps() -> None:
    nowhere = "postgresql://nowhere.invalid/none"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['opentelemetry.sdk'] = None; import worker; sys.exit(worker.main())",
        ],
        cwd=ROOT,
        env={
            "SYNCLINE_TRACES_URL": "http://127.0.0.1:1/v1/traces",
            "SYNCLINE_WRITE_DSN": nowhere,
            "SYNCLINE_GRAPH_DSN": nowhere,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "SYNCLINE_TRACES_URL" in done.stderr
    assert "pip install 'syncline[tracing]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


FUNCTIONS = {"absent", "histogram_quantile", "increase", "max_over_time", "rate", "time"}
AGGREGATIONS = {"count", "max", "sum"}
OPERATORS = {"and", "or", "unless"}
GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?\s*(\(?)")


def selected(expression: str) -> tuple[dict[str, set[str]], set[str]]:
    """Return the metrics of a PromQL expression with the labels that they are matched by, and those it groups by."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    assert all(bare.count(opening) == bare.count(closing) for opening, closing in ("()", "[]", "{}")), (
        expression
    )
    groupings = {
        label.strip() for found in GROUPING.findall(bare) for label in found.split(",") if label.strip()
    }
    bare = re.sub(r"\[[^\]]*\]|\boffset \w+", "", GROUPING.sub("", bare))
    metrics_of: dict[str, set[str]] = {}
    for name, matchers, call in SELECTOR.findall(bare):
        if call:
            assert name in FUNCTIONS | AGGREGATIONS | OPERATORS, f"{name} in {expression}"
        elif name not in OPERATORS:
            metrics_of.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
    return metrics_of, groupings


@cache
def rules() -> list[dict[str, object]]:
    loaded = yaml.safe_load((ROOT / "ops" / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


@cache
def dashboard() -> dict[str, object]:
    loaded: dict[str, object] = json.loads((ROOT / "ops" / "dashboard.json").read_text(encoding="utf-8"))
    return loaded


def panels() -> list[dict[str, object]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def labels_of(name: str, scene: Scene) -> set[str]:
    """Return the labels of a series: declared, recorded by the rules, or as the Temporal SDK serves it now."""
    if ":" in name:
        assert name in {rule.get("record") for rule in rules()}, f"no rule records {name}"
        return {"job", *name.partition(":")[0].split("_")}
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    bucket = {"le"} if name.endswith("_bucket") else set()
    if base.startswith(metrics.PREFIX):
        metric = metrics.DECLARED[base.removeprefix(metrics.PREFIX)]
        assert (base != name) is (metric.type == "histogram")
        return {"job", "instance", *metric.labels, *bucket}
    family = scene.families[base]
    assert (base != name) is (family.type == "histogram")
    return {"job", "instance", *bucket, *(label for sample in family.samples for label in sample.labels)}


EXPRESSIONS = [
    *(pytest.param(rule["expr"], id=str(rule.get("alert") or rule.get("record"))) for rule in rules()),
    *(
        pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
        for panel in panels()
        for target in panel["targets"]
    ),
]


@pytest.mark.long(after=30)
@pytest.mark.parametrize("expression", EXPRESSIONS)
async def test_rules_and_panels_use_metrics_and_labels_that_there_are(scene: Scene, expression: str) -> None:
    metrics_of, groupings = selected(expression)
    assert metrics_of
    known = {name: labels_of(name, scene) for name in metrics_of}
    for name, matched in metrics_of.items():
        assert matched <= known[name], f"{name} has no label {matched - known[name]}"
    assert groupings <= set().union(*known.values())


async def test_an_alert_tells_labels_that_its_series_have(scene: Scene) -> None:
    for rule in rules():
        if "alert" in rule:
            told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
            known = set().union(*(labels_of(name, scene) for name in selected(str(rule["expr"]))[0]))
            assert told <= known


def test_every_recorded_series_is_used() -> None:
    recorded = {str(rule["record"]) for rule in rules() if "record" in rule}
    used = set().union(*(selected(parameters.values[0])[0] for parameters in EXPRESSIONS))
    assert recorded <= used


def test_the_dashboard_can_be_imported_anywhere() -> None:
    board = dashboard()
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "job", "graph"]
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in board["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken), "panels overlap"
    assert max(x for x, _ in taken) < 24


def test_a_plugin_measures_what_it_likes_but_under_no_name_of_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = f"127.0.0.1:{free_port()}"
    runtime = Runtime(telemetry=TelemetryConfig(metrics=PrometheusConfig(bind_address=address)))
    meter = TemporalMeter(runtime.metric_meter)
    record_cycle(
        meter,
        SyncResult(status=CycleStatus.DRAINED, oldest_writer=OpenWriter()),
        graph="world",
        provider="acme",
        fallback_since=0.0,
    )
    meter.count("acme_calls", 3, colour="red")
    for _ in range(2):
        meter.count("parked", 3, graph="world")
        meter.gauge("lag_seconds", 3, planet="mars")
    values = {
        family.name: [sample.value for sample in family.samples]
        for family in text_string_to_metric_families(scrape(address))
    }
    assert values["syncline_acme_calls"] == [3]
    assert (values["syncline_parked"], values["syncline_lag_seconds"]) == ([0], [0])
    assert capsys.readouterr().out.count("choose another name") == 2
    # Somebody holds capture back, and this role may not see since when.
    assert math.isnan(values["syncline_oldest_writer_seconds"][0])


def test_a_verification_is_measured_with_what_it_found() -> None:
    measured: dict[str, float] = {}

    class Recording(NullMeter):
        def gauge(self, name: str, value: float, **attributes: str) -> None:
            assert attributes == {"graph": "world"}
            measured[name] = value

    damaged = Relation(name="nodes", kind=RelationKind.ROWS, table="nodes", equal=7, missing=Found(count=2))
    broken = Relation(name="edges", kind=RelationKind.ROWS, table="edges", problem="it could not be read")
    record_verification(Recording(), Verification(relations=(damaged, broken)), graph="world")
    assert measured.pop("verify_timestamp_seconds") == pytest.approx(time.time(), abs=5)
    assert measured == {"verify_damaged": 2, "verify_compared": 9, "verify_problems": 1}
