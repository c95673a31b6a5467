"""With a payload codec Temporal keeps nothing of runs that it can read: inputs, results, failures, memos."""

import base64
import dataclasses
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import Payload
from temporalio.client import Client

from activities.operations import OperationActivities
from syncline import names
from syncline.control.graphs import GraphChanges
from syncline.errors import SettingsInvalid
from syncline.temporal.data_converter import load_data_converter
from syncline.temporal.schedules.graph import ensure_schedule
from syncline.testing.lab import SyncLab
from tests.kit.command_line import CommandLine
from tests.workflow.test_carried_state import ScheduledRuns
from worker import create_operations_worker

EXAMPLE = Path(__file__).parents[2] / "examples" / "payload-codec" / "src"
KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def codec_named(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The variables that name the example's codec, in force."""
    variables = {"SYNCLINE_PAYLOAD_CODEC": "syncline_aes:open_codec", "SYNCLINE_AES_KEYS": f"k1:{KEY}"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(EXAMPLE)
    yield variables
    sys.modules.pop("syncline_aes", None)


@pytest_asyncio.fixture(loop_scope="session")
async def encoded(kg_idle: SyncLab, codec_named: dict[str, str]) -> AsyncIterator[SyncLab]:
    """A laboratory whose workers and client encode."""
    client = Client(**(kg_idle.client.config() | {"data_converter": load_data_converter()}))
    lab = dataclasses.replace(kg_idle, client=client)
    operations = OperationActivities(lab.services, beat_seconds=0.2)
    async with lab.worker(), create_operations_worker(client, operations, lab.services.settings):
        yield lab


async def test_a_history_has_nothing_that_temporal_can_read(
    encoded: SyncLab, codec_named: dict[str, str], temporal_environment: dict[str, str], tmp_path: Path
) -> None:
    lab = encoded
    graph = await lab.services.graphs.get("kg")
    await lab.run(graph)
    run = await lab.start(graph)
    await run.result()
    assert (await lab.state(run)).graph is not None
    # Whoever has the codec reads and asks as ever: commands too.
    command = CommandLine(
        {**temporal_environment, **codec_named, "SYNCLINE_TASK_QUEUE": lab.task_queue}, tmp_path
    )
    added = await command("graph", "set", "kg", "--name", "Told In Confidence", "--json")
    assert added.status == 0, added.err
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    assert "Told In Confidence" in (await command("graph", "show", "kg")).out
    assert (await command("status", "kg")).status == 0
    refused = await command("graph", "show", "no-such-graph-anywhere")
    assert "no-such-graph-anywhere" in refused.err
    kept = ""
    async for found in lab.client.list_workflows(f"TaskQueue='{lab.task_queue}'"):
        history = await lab.client.get_workflow_handle(found.id, run_id=found.run_id).fetch_history()
        kept += history.to_json()
    payloads = kept.replace("\n", "")
    assert base64.b64encode(b"binary/encrypted").decode() in payloads
    assert "Told In Confidence" not in payloads
    # A payload that is JSON is kept as base64 of the words that say so; attributes and ids alone are plain.
    assert "Told In" not in "".join(map(_decoded, re.findall(r'"data": "([^"]*)"', kept)))
    failures = re.findall(r'"message": "([^"]*)"', kept)
    assert failures
    assert set(failures) == {"Encoded failure"}
    await lab.client.get_schedule_handle(names.sync_schedule_id("kg")).delete()


async def test_state_goes_on_from_a_failure_that_temporal_cannot_read(encoded: SyncLab) -> None:
    graph = await encoded.services.graphs.update("kg", GraphChanges(status="archived"))
    await ensure_schedule(
        encoded.client, graph.model_copy(update={"status": "active"}), task_queue=encoded.task_queue
    )
    runs = ScheduledRuns(encoded, graph)
    for number in (1, 2):
        run = await runs.next()
        assert (await encoded.failure(run)).type == "GraphInvalid"
        assert (await encoded.state(run)).carried.totals.failed == number
    await encoded.client.get_schedule_handle(names.sync_schedule_id("kg")).delete()


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("nowhere", "is not `module:factory`"),
        ("no_such_module_at_all:open_codec", "ModuleNotFoundError"),
        ("json:loads", "cannot be opened (TypeError"),
        ("builtins:dict", "returned dict, which is no PayloadCodec"),
        ("syncline_aes:open_nothing", "AttributeError"),
    ],
)
def test_a_codec_that_cannot_be_had_is_refused_by_name(
    codec_named: dict[str, str], monkeypatch: pytest.MonkeyPatch, named: str, said: str
) -> None:
    monkeypatch.setenv("SYNCLINE_PAYLOAD_CODEC", named)
    with pytest.raises(SettingsInvalid, match="SYNCLINE_PAYLOAD_CODEC") as caught:
        load_data_converter()
    assert said in str(caught.value)


def test_a_bad_key_is_told_without_it(codec_named: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCLINE_AES_KEYS", "k1:c2hvcnQ=")
    with pytest.raises(SettingsInvalid) as caught:
        load_data_converter()
    assert "32 bytes" in str(caught.value)
    assert "c2hvcnQ" not in str(caught.value)


async def test_the_codec_of_the_example_reads_what_old_keys_wrote_and_refuses_what_was_changed(
    codec_named: dict[str, str],
) -> None:
    from syncline_aes import AesCodec

    one, two = AesCodec({"a": b"1" * 32}), AesCodec({"b": b"2" * 32, "a": b"1" * 32})
    plain = Payload(metadata={"encoding": b"json/plain"}, data=b'"secret"')
    [sealed] = await one.encode([plain])
    assert b"secret" not in sealed.SerializeToString()
    assert await two.decode([sealed, plain]) == [plain, plain]
    [newer] = await two.encode([plain])
    with pytest.raises(ValueError, match="key 'b'"):
        await one.decode([newer])
    sealed.data = sealed.data[:-1] + bytes([sealed.data[-1] ^ 1])
    with pytest.raises(ValueError, match="was changed"):
        await one.decode([sealed])


def _decoded(data: str) -> str:
    return base64.b64decode(data).decode(errors="replace")
