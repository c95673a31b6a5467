"""Fixtures of the whole suite, and how its tests are shared out among processes.

The fixtures live in the shipped test kit, so that plugin authors have them too.
"""

import atexit
import gc
import re
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
import structlog
from xdist.scheduler import LoadFileScheduling

from syncline.process_exit import leave, risks_a_crash

_STACK = "the tests of one running stack"
_WITH_STACK = ("acceptance/test_readme.py", "acceptance/test_recipes.py", "acceptance/test_wordnet.py")
"""What a `syncline dev` is started for once, as long as it is the same process."""
_HISTORIES = ("integration/test_environment_histories.py", "integration/test_engine_histories.py")
_FIRST = (*_WITH_STACK, "acceptance", *_HISTORIES, "workflow", "integration")
"""What takes long begins first, so that the processes end together."""

_status = [0]

gc.disable()  # while all modules are imported and all tests collected, none of which is garbage: half of that time


@atexit.register  # before any other, so that it is called last
def _end() -> None:
    # A process of the suite is gone without a word, now and then, if the interpreter is taken down under the SDK.
    if risks_a_crash():
        leave(_status[-1])


pytest_plugins = [
    "syncline.testing.postgres",
    "syncline.testing.graphs",
    "syncline.testing.temporal",
    "tests.kit.long_tests",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-proofs",
        type=Path,
        metavar="PAGE",
        help="Write which tests passed to this page, if all did.",
    )
    parser.addoption(
        "--embedding-texts",
        type=int,
        metavar="N",
        help="Change the embedding of so many texts in the proof of it, and write its table in docs/embeddings.md.",
    )
    parser.addoption(
        "--rebuild-rows",
        type=int,
        metavar="N",
        help="Rebuild a graph of so many rows in the proof of it, and write its table in docs/rebuild.md.",
    )
    parser.addoption(
        "--record-failover",
        action="store_true",
        help="Write what the drills of a promotion found to docs/operations/postgres-failover.md, if all did well.",
    )
    parser.addoption(
        "--postgres-bin",
        type=Path,
        metavar="FOLDER",
        help="Run against the PostgreSQL whose programs are there, in place of the wheel's.",
    )


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """A test that runs a worker or a command in its own process configures logging for the next ones too."""
    yield
    structlog.reset_defaults()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        # No later collection looks through what stays until the end of the session.
        gc.freeze()
        gc.enable()


def pytest_sessionfinish(exitstatus: int) -> None:
    _status.append(int(exitstatus))


_IN_MEMORY = Path("/dev/shm")  # where there is one
_ROOM = 4 * 2**30
_PROOFS = "# The long proofs"


def pytest_configure(config: pytest.Config) -> None:
    # A shell without job control starts what runs in its background deaf to Ctrl-C, and so are the commands that
    # tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Stores flush to disk whenever they should, and here nothing has to outlive the machine.
    if _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > _ROOM:
        tempfile.tempdir = str(_IN_MEMORY)
    page = config.getoption("--record-proofs")
    # Each process of xdist has the option too; the one that hears of all tests writes.
    if page is not None and not hasattr(config, "workerinput"):
        # The tables of proofs in other pages are written by the tests themselves.
        if page.exists() and not page.read_text(encoding="utf-8").startswith(_PROOFS):
            raise pytest.UsageError(f"--record-proofs would overwrite {page}, which is another page.")
        config.pluginmanager.register(_Recorder(page))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(root).as_posix()
        return next((number for number, first in enumerate(_FIRST) if name.startswith(first)), len(_FIRST))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> "_Sharing":
    return _Sharing(config, log)


class _Sharing(LoadFileScheduling):
    """Tests go to whichever process is free, but those of a file that share something stay together."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        if file.endswith(_WITH_STACK):
            return _STACK
        return file if _shares(file) else nodeid


@cache
def _shares(file: str) -> bool:
    """Whether the tests of this file share fixtures of their module, or are so quick that it is not worth asking."""
    text = (Path(__file__).parents[1] / file).read_text(encoding="utf-8")
    return "/unit/" in file or re.search(r'\bscope="module"|\bshared_lab\b', text) is not None


class _Recorder:
    """Writes the page of the proofs."""

    def __init__(self, page: Path) -> None:
        self._page = page
        self._passed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            file, _, test = report.nodeid.partition("::")
            sentence = test.removeprefix("test_").replace("_", " ")
            self._passed.append(
                f"| {sentence} | `{file}` | {report.duration:.0f} | {datetime.now(UTC):%Y-%m-%d} |"
            )

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK and self._passed:
            head = [
                _PROOFS,
                "",
                "`make prove` runs them, and writes here what has passed, in place of what it said of the same tests before; `make test`",
                "runs smaller ones of the same kind. The three hundred histories are told in parts, of fifty each and of twenty steps.",
                "",
                "| What holds | Test | Seconds | Last passed |",
                "|---|---|--:|---|",
            ]
            text = self._page.read_text(encoding="utf-8") if self._page.exists() else ""
            kept = {_proved(row): row for row in re.findall(r"^\| .*\.py` .*$", text, flags=re.MULTILINE)}
            told = kept | {_proved(row): row for row in self._passed}
            self._page.write_text("\n".join([*head, *sorted(told.values(), key=_proved), ""]))


def _proved(row: str) -> tuple[str, str]:
    """Return the file and the sentence of a row on the page of the proofs."""
    _, sentence, file, *_ = row.split("|")
    return file, sentence
