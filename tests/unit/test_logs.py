"""Logs: one format for us and for libraries, and no credentials in it."""

import json
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from pydantic import SecretStr

from syncline.masking import masked

ROOT = Path(__file__).parents[2]


def _logged(fmt: str, code: str, level: str = "INFO") -> str:
    """Return what a process that configures logging and runs `code` writes to stderr."""
    script = "\n".join(
        [
            "import logging",
            "from pydantic import SecretStr",
            "from syncline.logs import configure_logging, get_log",
            f"configure_logging({level!r}, {fmt!r})",
            textwrap.dedent(code),
        ]
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return done.stderr


def test_our_events_and_a_library_s_records_have_one_json_format() -> None:
    lines = _logged(
        "json",
        """
        get_log().info("cycle ended", graph="world", rows=3)
        logging.getLogger("temporalio.worker").warning("poll %s", "failed", extra={"attempt": 2})
        """,
    ).splitlines()
    ours, theirs = (json.loads(line) for line in lines)
    assert (ours["event"], ours["level"], ours["graph"], ours["rows"]) == ("cycle ended", "info", "world", 3)
    assert (theirs["event"], theirs["level"], theirs["logger"]) == (
        "poll failed",
        "warning",
        "temporalio.worker",
    )
    assert theirs["attempt"] == 2
    assert ours.keys() - {"graph", "rows"} == theirs.keys() - {"attempt"}


@pytest.mark.parametrize("fmt", ["console", "json"])
def test_no_format_shows_a_secret(fmt: str) -> None:
    told = _logged(
        fmt,
        """
        uri = "postgresql://me:hunter2@host/db"
        get_log().info("to " + uri, dsn=uri, nested={"list": [uri]}, error=OSError(uri))
        get_log().info("with", key=SecretStr("hunter2"))
        logging.getLogger("lib").warning("to %s", uri, extra={"where": uri, "key": SecretStr("hunter2")})
        try:
            raise ConnectionError(uri)
        except ConnectionError:
            get_log().exception("refused")
            logging.getLogger("lib").exception("refused")
        """,
    )
    assert "hunter2" not in told
    assert told.count("ConnectionError") >= 2
    assert "postgresql://me:**********@host/db" in told


def test_what_is_below_the_level_is_not_written() -> None:
    told = _logged(
        "console",
        """
        get_log().info("quiet")
        logging.getLogger("lib").info("quiet")
        get_log().warning("loud")
        """,
        level="WARNING",
    )
    assert "quiet" not in told
    assert "loud" in told


def test_configuring_again_does_not_write_twice() -> None:
    told = _logged("json", "configure_logging('INFO', 'json'); get_log().info('once')")
    assert len(told.splitlines()) == 1


def test_the_libraries_that_tell_every_request_are_kept_quiet() -> None:
    assert _logged("json", "logging.getLogger('httpx').info('HTTP Request: GET https://…')") == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("postgresql://me:p@ss/w:rd@host:5432/db", "postgresql://me:**********@host:5432/db"),
        ("postgresql://:hunter2@/db", "postgresql://:**********@/db"),
        ("host=h password=hunter2 dbname=d", "host=h password=********** dbname=d"),
        ("postgresql://h/d?user=u&password=hunter2&x=1", "postgresql://h/d?user=u&password=**********&x=1"),
        ("http://localhost:8233/namespaces", "http://localhost:8233/namespaces"),
        ("postgresql://postgres@/db?host=/tmp", "postgresql://postgres@/db?host=/tmp"),
        ("write to someone@example.org", "write to someone@example.org"),
        (SecretStr("hunter2"), "**********"),
        (("a://b:c@d", 1, None), ["a://b:**********@d", 1, None]),
    ],
)
def test_masking_hides_passwords_and_leaves_the_rest(value: object, shown: object) -> None:
    assert masked(value) == shown


def test_importing_the_log_configures_nothing() -> None:
    code = "import logging, syncline.logs; assert not logging.getLogger().handlers; print(logging.root.level)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == logging.WARNING


def test_whatever_a_process_prints_by_itself_is_json_on_one_line() -> None:
    script = textwrap.dedent(
        """
        import asyncio, logging, threading, warnings
        from syncline.logs import configure_logging
        configure_logging("INFO", "json")
        warnings.warn("old and password=hunter2")
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start(); thread.join()
        class Broken:
            def __str__(self): raise RuntimeError("cannot be told")
        logging.getLogger("lib").warning("%s", Broken())
        logging.getLogger("lib").warning("%d", "no number")
        class Dying:
            def __del__(self): raise ValueError("nobody hears it")
        Dying()
        logging.getLogger("lib").info("number", extra={"nan": float("nan"), "lines": "a\\nb"})
        asyncio.run(asyncio.sleep(0))
        raise LookupError("password=hunter2\\nsecond line")
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert "hunter2" not in done.stderr
    assert "NaN" not in done.stderr
    told = "\n".join(f"{line['event']} {line.get('exception', '')}" for line in lines)
    for what in ("UserWarning", "ZeroDivisionError", "cannot be logged", "nobody hears it", "LookupError"):
        assert what in told, told
    assert len(lines) == 7


def test_the_worker_says_in_the_format_of_logs_that_it_cannot_start() -> None:
    environment = {"SYNCLINE_LOG_FORMAT": "json", "SYNCLINE_POOL_SIZE": "many", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "worker.py"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = [json.loads(line) for line in done.stderr.splitlines()]
    assert line["kind"] == "SettingsInvalid"
    assert "SYNCLINE_POOL_SIZE" in line["error"]
    assert "many" not in line["error"]
