"""What compose.yaml and the chart start with is what the settings take."""

import re
from pathlib import Path

import pytest
import yaml

from syncline.settings import Settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "ops" / "chart" / "values.yaml"
ADDRESSES = {
    "SYNCLINE_WRITE_DSN": "postgresql://h/w",
    "SYNCLINE_GRAPH_DSN": "postgresql://h/g",
    "SYNCLINE_QDRANT_URL": "http://h:6333",
}


def of_compose() -> dict[str, str]:
    """The environment of the workers, where nothing is set but what has to be."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    given = yaml.safe_load(text)["x-syncline"]["environment"]
    defaults = {
        name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value))
        for name, value in given.items()
        if value is not None
    }
    return {name: re.sub(r"\$\{\w+(:\?.*?)?\}", "given", value) for name, value in defaults.items()}


def of_chart() -> dict[str, str]:
    """The settings of its values."""
    settings = yaml.safe_load(CHART.read_text(encoding="utf-8"))["settings"]
    return {name: str(value) for name, value in settings.items()}


@pytest.mark.parametrize("given", [of_compose(), of_chart()], ids=["compose", "chart"])
def test_defaults_of_a_deployment_are_settings(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = ADDRESSES | {name: value for name, value in given.items() if name.startswith("SYNCLINE_")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings().embedding == "development"
    known = {f"SYNCLINE_{name.upper()}" for name in Settings.model_fields}
    assert [name for name in environment if name not in known] == []
