"""Fixtures of the whole suite; they live in the shipped test kit, so that plugin authors have them too."""

from pathlib import Path

import pytest

pytest_plugins = ["syncline.testing.postgres", "syncline.testing.graphs", "syncline.testing.temporal"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-proofs",
        type=Path,
        metavar="PAGE",
        help="Write which tests passed to this page, if all did.",
    )


def pytest_configure(config: pytest.Config) -> None:
    page = config.getoption("--record-proofs")
    # Each process of xdist has the option too; the one that hears of all tests writes.
    if page is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Recorder(page))


class _Recorder:
    """Writes the page of the proofs."""

    def __init__(self, page: Path) -> None:
        self._page = page
        self._passed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            file, _, test = report.nodeid.partition("::")
            sentence = test.removeprefix("test_").replace("_", " ")
            self._passed.append(f"| {sentence} | `{file}` | {report.duration:.0f} |")

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK and self._passed:
            head = [
                "# The long proofs",
                "",
                "`make prove` runs them and writes this page when all of them have passed; `make test` runs smaller ones of",
                "the same kind. Numbers in brackets are sizes: of histories, how many and of how many steps.",
                "",
                "| What holds | Test | Seconds |",
                "|---|---|--:|",
            ]
            self._page.write_text("\n".join([*head, *self._passed, ""]))
