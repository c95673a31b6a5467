"""Settings: read from the environment, documented, and never echoed."""

import os
from pathlib import Path

import pytest

from syncline.errors import SettingsInvalid
from syncline.settings import Settings, load_settings, reference

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("SYNCLINE_"):
            monkeypatch.delenv(name)


def _refused() -> str:
    with pytest.raises(SettingsInvalid) as refused:
        load_settings()
    # A chained cause would carry the value into tracebacks and logs.
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None
    return str(refused.value)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description is not None
    assert description.endswith(".")


def test_the_documentation_is_what_the_model_says() -> None:
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == reference(), (
        "run: .venv/bin/python -m syncline.settings > docs/settings.md"
    )


def test_what_is_missing_is_named_as_a_variable() -> None:
    message = _refused()
    assert "SYNCLINE_WRITE_DSN" in message
    assert "SYNCLINE_GRAPH_DSN" in message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POOL_SIZE", "hunter2"),
        ("EMBEDDING", "hunter2"),
        ("STORES", '{"archive": "postgresql://me:hunter2@host"'),
        ("STORES", '["hunter2"]'),
        ("QDRANTS", '{"far": {"url": "https://q", "api_kee": "hunter2"}}'),
    ],
)
def test_a_malformed_value_is_named_and_never_echoed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("SYNCLINE_WRITE_DSN", "postgresql://me:hunter2@write")
    monkeypatch.setenv("SYNCLINE_GRAPH_DSN", "postgresql://me:hunter2@graph")
    monkeypatch.setenv(f"SYNCLINE_{variable}", value)
    message = _refused()
    assert f"SYNCLINE_{variable}" in message
    assert "hunter2" not in message


def test_a_problem_inside_a_json_setting_names_the_key_as_it_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SYNCLINE_QDRANTS", '{"farAway": {}}')
    assert "SYNCLINE_QDRANTS (key farAway.url)" in _refused()


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ({"BUILD_ID": "7f3a"}, "set SYNCLINE_DEPLOYMENT_NAME and SYNCLINE_BUILD_ID, or neither"),
        ({"DEPLOYMENT_NAME": "sync"}, "set SYNCLINE_DEPLOYMENT_NAME and SYNCLINE_BUILD_ID, or neither"),
        ({"DEPLOYMENT_NAME": "sync.eu", "BUILD_ID": "7f3a"}, "SYNCLINE_DEPLOYMENT_NAME: String should match"),
        ({"DEPLOYMENT_NAME": "sync", "BUILD_ID": ""}, "SYNCLINE_BUILD_ID: String should have at least 1"),
    ],
)
def test_half_a_deployment_is_refused(
    monkeypatch: pytest.MonkeyPatch, declared: dict[str, str], problem: str
) -> None:
    for name, value in {"WRITE_DSN": "postgresql://w", "GRAPH_DSN": "postgresql://g", **declared}.items():
        monkeypatch.setenv(f"SYNCLINE_{name}", value)
    message = _refused()
    assert problem in message
    assert message.count("SYNCLINE_") <= 3, "one problem is told once"


def test_secrets_do_not_show_when_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCLINE_WRITE_DSN", "postgresql://me:hunter2@write")
    monkeypatch.setenv("SYNCLINE_GRAPH_DSN", "postgresql://me:hunter2@graph")
    monkeypatch.setenv("SYNCLINE_STORES", '{"archive": "postgresql://me:hunter2@archive"}')
    monkeypatch.setenv("SYNCLINE_QDRANTS", '{"far": {"url": "https://q", "api_key": "hunter2"}}')
    settings = load_settings()
    assert settings.stores["archive"].get_secret_value().endswith("@archive")
    assert "hunter2" not in f"{settings!r} {settings.model_dump_json()}"


def _stores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WRITE_DSN", "GRAPH_DSN"):
        monkeypatch.setenv(f"SYNCLINE_{name}", "postgresql://somewhere")


def test_a_second_embedding_has_the_same_settings_and_none_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _stores(monkeypatch)
    monkeypatch.setenv("SYNCLINE_EMBEDDING_DIMENSIONS", "16")
    monkeypatch.setenv("SYNCLINE_EMBEDDING_API_KEY", "first")
    assert load_settings().second is None
    monkeypatch.setenv("SYNCLINE_SECOND_EMBEDDING", "openai")
    monkeypatch.setenv("SYNCLINE_SECOND_EMBEDDING_MODEL", "large")
    second = load_settings().second
    assert second is not None
    assert (second.embedding, second.embedding_model) == ("openai", "large")
    assert (second.embedding_dimensions, second.embedding_api_key) == (384, None)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SECOND_EMBEDDING_URL", "http://me:hunter2@host"),
        ("SECOND_EMBEDDING_DIMENSIONS", "hunter2"),
        ("SECOND_EMBEDDING_BODY", '{"model": "hunter2"}'),
        ("SECOND_EMBEDDING_HEADERS", "hunter2"),
    ],
)
def test_a_malformed_setting_of_the_second_embedding_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    _stores(monkeypatch)
    monkeypatch.setenv("SYNCLINE_SECOND_EMBEDDING", "openai")
    monkeypatch.setenv(f"SYNCLINE_{variable}", value)
    message = _refused()
    assert f"SYNCLINE_{variable}" in message
    assert "SYNCLINE_EMBEDDING" not in message
    assert "hunter2" not in message


def test_settings_of_a_second_embedding_without_its_kind_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _stores(monkeypatch)
    monkeypatch.setenv("SYNCLINE_SECOND_EMBEDDING_MODEL", "large")
    message = _refused()
    assert "SYNCLINE_SECOND_EMBEDDING: set it too" in message
    assert "SYNCLINE_SECOND_EMBEDDING_MODEL" in message
