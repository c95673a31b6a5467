"""What `temporal-dev.yaml` may say, and how it is refused: the file, the key and the fix are named."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from syncline.devstack.declaration import StackDeclaration, find_declaration, read_declaration
from syncline.devstack.environment import StackStores, exports_of, stack_settings, worker_environment
from syncline.devstack.processes import ProcessIdentity, require_free_port
from syncline.devstack.state import RunningStack, StateFolder
from syncline.errors import DevStackError, SettingsInvalid

CHECKOUT = Path(__file__).parents[2]
STORES = StackStores(write_dsn="postgresql://w", graph_dsn="postgresql://g", qdrant_path=Path("/q"))

Declare = Callable[[str], StackDeclaration]


@pytest.fixture
def declare(tmp_path: Path) -> Declare:
    """A function that writes the text to `temporal-dev.yaml` and reads it."""

    def declare(text: str) -> StackDeclaration:
        path = tmp_path / "temporal-dev.yaml"
        path.write_text(text)
        return read_declaration(path)

    return declare


def test_the_file_of_the_repository_declares_both_sample_graphs() -> None:
    declared = read_declaration(CHECKOUT / "temporal-dev.yaml")
    assert declared.temporal.address == "127.0.0.1:7233"
    assert declared.temporal.ui_port == 8233
    assert declared.state_dir == CHECKOUT / ".syncline"
    world, fallback = declared.graphs["world"], declared.graphs["world-fallback"]
    assert (world.sample, world.is_default, world.schema_name) == ("world", True, "world")
    assert world.composition == {"sync": {"provider": "default"}}
    assert (fallback.sample, fallback.is_default, fallback.qdrant_prefix) == (
        "world",
        False,
        "world_fallback_",
    )
    assert fallback.composition == {"sync": {"provider": "acme-sync"}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("temproal: {}", "temproal: this key is not known; remove it (the top level knows graphs, "),
        ("temporal: {prot: 1}", "temporal.prot: this key is not known"),
        ("temporal: {port: 70000}", "temporal.port: input should be less than or equal to 65535, not 70000"),
        ("temporal: {port: 8233}", "temporal: port and ui_port are both 8233; give them different numbers"),
        ("temporal:", "temporal: must be a mapping"),
        ("graphs: {world: {sample: moon}}", "graphs.world.sample: input should be 'world', not 'moon'"),
        ("graphs: {a: {is_default: true}, b: {is_default: true}}", "keep it on one graph"),
        ("graphs: {a: {every_seconds: 0}}", "graphs.a.every_seconds: input should be greater than"),
        ("worker: {settings: {SYNCLINE_BATCH_ROW: 1}}", "SYNCLINE_BATCH_ROW is not a setting"),
        ("worker: {settings: {BATCH_ROWS: 1}}", "BATCH_ROWS is not a setting"),
        ("worker: {settings: {SYNCLINE_BATCH_ROWS: 0}}", "SYNCLINE_BATCH_ROWS: Input should be greater"),
        ("worker: {settings: {SYNCLINE_WRITE_DSN: x}}", "SYNCLINE_WRITE_DSN is set by the stack itself"),
        ("root: /", "root: this key is not known; remove it"),
        ("- world", "must be a mapping"),
        ("temporal: [", "is not valid YAML"),
    ],
)
def test_a_wrong_declaration_names_the_file_the_key_and_the_fix(
    declare: Declare, text: str, sentence: str
) -> None:
    with pytest.raises(DevStackError) as caught:
        declare(text)
    assert sentence in str(caught.value)
    assert "temporal-dev.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_of_worker_settings_are_never_repeated(declare: Declare) -> None:
    with pytest.raises(DevStackError) as caught:
        declare("worker: {settings: {SYNCLINE_QDRANTS: {a: {url: 1, api_key: s3cret}}}}")
    assert "s3cret" not in str(caught.value)


def test_a_missing_file_says_where_to_stand(tmp_path: Path) -> None:
    with pytest.raises(DevStackError, match="Name another file with --config"):
        read_declaration(tmp_path / "temporal-dev.yaml")


def test_the_file_of_this_folder_comes_before_the_one_that_syncline_brings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    brought = find_declaration(None)
    assert brought.graphs.keys() == {"world", "world-fallback"}
    assert brought.state_dir == tmp_path / ".syncline"
    (tmp_path / "temporal-dev.yaml").write_text("state: own\n")
    assert find_declaration(None).state_dir == tmp_path / "own"
    assert find_declaration(CHECKOUT / "temporal-dev.yaml").state_dir == CHECKOUT / ".syncline"


def test_the_command_line_comes_before_the_file(declare: Declare, tmp_path: Path) -> None:
    declared = declare("{}")
    assert declared.overridden(port=None, ui_port=None, state_dir=None) == declared
    moved = declared.overridden(port=9000, ui_port=None, state_dir=tmp_path / "elsewhere")
    assert (moved.temporal.port, moved.temporal.ui_port) == (9000, 10_000)
    assert moved.state_dir == tmp_path / "elsewhere"
    assert declared.overridden(port=9000, ui_port=9001, state_dir=None).temporal.ui_port == 9001
    with pytest.raises(DevStackError, match="--port/--ui-port: ui_port"):
        declared.overridden(port=65_000, ui_port=None, state_dir=None)


def test_an_exported_production_store_never_reaches_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCLINE_WRITE_DSN", "postgresql://far-away")
    monkeypatch.setenv("SYNCLINE_STORES", '{"eu": "postgresql://far-away"}')
    monkeypatch.setenv("SYNCLINE_QDRANT_URL", "https://far-away")
    monkeypatch.setenv("SYNCLINE_QDRANT_API_KEY", "key")
    monkeypatch.setenv("SYNCLINE_BATCH_ROWS", "123")
    monkeypatch.setenv("TEMPORAL_API_KEY", "far-away")
    monkeypatch.setenv("SYNCLINE_OWNER_ROLE", "far-away")
    settings = stack_settings(STORES.as_owner, {"pool_size": 7})
    assert settings.write_dsn.get_secret_value() == "postgresql://w"
    assert (settings.stores, settings.qdrant_url, settings.qdrant_api_key) == ({}, None, None)
    assert (settings.batch_rows, settings.pool_size) == (123, 7)
    environment = worker_environment(STORES, {"SYNCLINE_POOL_SIZE": "7"}, address="h:1", namespace="n")
    assert "far-away" not in " ".join(environment.values())
    assert environment["SYNCLINE_BATCH_ROWS"] == "123"
    assert (environment["TEMPORAL_ADDRESS"], environment["TEMPORAL_NAMESPACE"]) == ("h:1", "n")


def test_a_qdrant_that_the_file_names_takes_its_key_from_the_environment(
    declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNCLINE_QDRANT_API_KEY", "key")
    worker = declare("worker: {settings: {SYNCLINE_QDRANT_URL: 'http://qdrant'}}").worker
    settings = stack_settings(STORES.as_owner, worker.fields)
    assert settings.qdrant_api_key is not None
    environment = worker_environment(STORES, worker.environment, address="h:1", namespace="n")
    assert environment["SYNCLINE_QDRANT_API_KEY"] == "key"


def test_a_wrong_value_in_the_environment_is_told_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCLINE_POOL_SIZE", "many")
    with pytest.raises(SettingsInvalid, match="SYNCLINE_POOL_SIZE") as caught:
        stack_settings(STORES.as_owner, {})
    assert "many" not in str(caught.value)


def test_the_worker_of_the_stack_logs_in_as_its_own_role() -> None:
    stores = STORES.model_copy(
        update={
            "worker_write_dsn": "postgresql://worker",
            "worker_graph_dsn": "postgresql://wg",
            "owner_role": "o",
        }
    )
    environment = worker_environment(stores, {}, address="h:1", namespace="n")
    assert environment["SYNCLINE_WRITE_DSN"] == "postgresql://worker"
    assert environment["SYNCLINE_GRAPH_DSN"] == "postgresql://wg"
    assert environment["SYNCLINE_OWNER_ROLE"] == "o"
    settings = stack_settings(stores.as_owner, {})
    assert settings.write_dsn.get_secret_value() == "postgresql://w"


def test_a_taken_port_names_its_owner_and_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(DevStackError) as caught:
            require_free_port("127.0.0.1", port, use="Temporal", option="--port", key="temporal.port")
    assert f"Port {port} (Temporal) is taken by" in str(caught.value)
    assert f"(pid {os.getpid()})" in str(caught.value)
    assert "`syncline dev --port N` or temporal.port" in str(caught.value)
    require_free_port("127.0.0.1", port, use="Temporal", option="--port", key="temporal.port")


def test_a_foreign_address_is_refused() -> None:
    with pytest.raises(DevStackError, match=r"192\.0\.2\.1.* is not an address of this machine"):
        require_free_port("192.0.2.1", 7233, use="Temporal", option="--port", key="temporal.port")


def test_the_state_folder_belongs_to_one_stack_at_a_time(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    with (
        folder.locked(),
        pytest.raises(DevStackError, match=rf"Another `syncline dev` \(pid {os.getpid()}\).*--state-dir"),
        StateFolder(tmp_path).locked(),
    ):
        pass
    with folder.locked():
        pass


def test_a_record_of_a_dead_stack_is_not_a_running_stack(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    ourselves = ProcessIdentity.of(os.getpid())
    assert ourselves is not None
    folder.write(RunningStack(dev=ourselves, stores=STORES))
    assert folder.running() is not None
    # The same pid, created at another time, is another process.
    reborn = ourselves.model_copy(update={"create_time": ourselves.create_time - 60})
    folder.write(RunningStack(dev=reborn, stores=STORES))
    assert folder.running() is None
    (tmp_path / "dev.json").write_text("{half a reco")
    assert folder.read() is None


def test_exports_are_told_on_other_ports_and_for_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the defaults nothing is to be exported: commands find the stack, and Temporal is where it always is."""
    monkeypatch.chdir(tmp_path)
    stores = StackStores(write_dsn="postgresql://w@/x?host=/run/a b", graph_dsn="g", qdrant_path=Path("q"))
    usual = {"address": "127.0.0.1:7233", "namespace": "default"}
    assert exports_of(stores, Path(".syncline"), **usual) is None
    moved = exports_of(stores, Path(".syncline"), address="127.0.0.1:7300", namespace="lab")
    assert moved == "export TEMPORAL_ADDRESS=127.0.0.1:7300 TEMPORAL_NAMESPACE=lab"
    elsewhere = exports_of(stores, tmp_path / "other", **usual)
    assert elsewhere is not None
    assert "TEMPORAL_ADDRESS=127.0.0.1:7233" in elsewhere
    assert "SYNCLINE_WRITE_DSN='postgresql://w@/x?host=/run/a b' SYNCLINE_GRAPH_DSN=g" in elsewhere
