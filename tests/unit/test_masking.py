"""Neither credentials nor values of rows leave: not in logs, not in errors, not in tracebacks."""

import json
import time

import asyncpg
import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from syncline.masking import FROM_CODE, error_text, masked, masked_message, raised_by_code, traceback_text
from syncline.stores.postgres import map_driver_error, postgres_error

SECRET = "hunter2-Zz9"


@pytest.mark.parametrize(
    "text",
    [
        "PGPASSWORD={0} psql",
        "export PGPASSWORD='{0} and more {0}'",
        '{{"password": "{0}"}}',
        "{{'api_key': '{0}'}}",
        '"{{\\"password\\": \\"{0}\\"}}"',
        '{{"password":"a \\" quote {0}"}}',
        "Authorization: Bearer {0}",
        "bearer {0}",
        "authorization: Basic {0}==",
        "{{'Authorization': 'Basic {0}'}}",
        "https://h/v1?key={0}&x=1",
        "https://h/v1?x=1&sig={0}",
        "postgresql://h/d?sslpassword={0}",
        "postgresql://u:my {0} pass@host/db",
        "postgresql://u:a#{0}@host",
        "postgresql://u:a/{0}@host",
        "host=h password='it\\'s {0}' dbname=d",
        "host=h password = {0} dbname=d",
        "sslpassword={0}",
        "password: {0}",
        "SYNCLINE_QDRANT_API_KEY={0}",
        "X-Amz-Security-Token={0}",
        "X-Amz-Signature={0}",
        "client_secret={0}",
        "access-key: {0}",
    ],
)
def test_masked_leaves_nothing_of_a_credential(text: str) -> None:
    shown = masked(text.format(SECRET))
    assert isinstance(shown, str)
    assert SECRET not in shown
    assert masked(shown) == shown


def test_masked_knows_a_credential_by_the_name_of_its_field() -> None:
    given = {
        "password": SECRET,
        "nested": [{"apiKey": SECRET, "token": SECRET.encode()}],
        "tokens": 3,
        "ok": "x",
    }
    shown = masked(given)
    assert SECRET not in json.dumps(shown)
    assert isinstance(shown, dict)
    assert (shown["tokens"], shown["ok"]) == (3, "x")


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8233/namespaces of syncline@host:12",
        "the password is wrong",
        "token bucket refilled",
        "SYNCLINE_EMBEDDING_API_KEY is not set",
        "key (id)=(1)",
        "ask someone@example.org: at https://example.org/a",
    ],
)
def test_masked_leaves_what_is_no_credential(text: str) -> None:
    assert masked(text) == text


def test_masked_takes_no_longer_for_long_texts_than_it_must() -> None:
    began = time.process_time()
    masked("a" * 100_000 + " password " * 1_000 + 'password="' + "x" * 100_000)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("sqlstate", "function", "raised"),
    [
        ("P0001", None, True),
        ("P0004", None, True),
        ("UE001", None, True),
        ("23514", "exec_stmt_raise", True),
        ("42501", "exec_stmt_raise", True),
        ("23514", "ExecConstraints", False),
        ("42501", "aclcheck_error", False),
        ("", None, False),
    ],
)
def test_raised_by_code(sqlstate: str, function: str | None, raised: bool) -> None:
    assert raised_by_code(sqlstate, function=function) is raised


def test_an_error_of_a_store_has_no_values_and_keeps_them_for_the_books() -> None:
    error = postgres_error("graph", "22P02", f'invalid input syntax for type integer: "{SECRET}"')
    assert SECRET not in str(error) + repr(error) + error.problem
    assert SECRET in error.said
    assert str(postgres_error("graph", "42501", "permission denied for table nodes")).endswith(
        "names the GRANT"
    )
    assert masked_message("P0001", SECRET) == FROM_CODE


async def _raised(dsn: str, sql: str) -> BaseException:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    except asyncpg.PostgresError as error:
        return error
    finally:
        await connection.close()
    raise AssertionError("nothing was raised")


RAISING = f"""
CREATE TABLE t ();
CREATE FUNCTION raising() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'row of {SECRET}' USING ERRCODE = '%s', DETAIL = '{SECRET}'; END $$;
CREATE TRIGGER raising BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION raising();
INSERT INTO t DEFAULT VALUES
"""


@pytest.mark.parametrize("sqlstate", ["P0001", "23514", "42501", "40001", "XX000", "0A000", "ZZ999"])
async def test_what_a_trigger_says_leaves_by_sqlstate_alone(new_database, sqlstate: str) -> None:  # type: ignore[no-untyped-def]
    error = await _raised(new_database(), RAISING % sqlstate)
    mapped = map_driver_error("graph", error)
    assert mapped is not None
    assert SECRET not in str(mapped)
    assert sqlstate in str(mapped)
    assert SECRET in mapped.said
    assert SECRET not in traceback_text(error)


@pytest.mark.parametrize(
    "sql",
    [
        f"CREATE TEMP TABLE t (a text UNIQUE); INSERT INTO t VALUES ('{SECRET}'), ('{SECRET}')",
        f"CREATE TEMP TABLE t (a text CHECK (a = '')); INSERT INTO t VALUES ('{SECRET}')",
        f"SELECT '{SECRET}'::int",
        f"SELECT '{{\"a\": {SECRET}'::json",
        f"SELECT to_date('{SECRET}', 'YYYY')",
        f"SELECT '{SECRET}'::uuid",
    ],
)
async def test_what_postgres_quotes_of_a_row_leaves_in_no_error_and_no_traceback(
    new_database, sql: str
) -> None:  # type: ignore[no-untyped-def]
    error = await _raised(new_database(), sql)
    assert "hunt" in f"{error} {getattr(error, 'detail', '')}"
    try:
        try:
            raise error
        except asyncpg.PostgresError as caught:
            raise RuntimeError("around it") from caught
    except RuntimeError as outer:
        shown = traceback_text(outer)
    assert "hunt" not in shown + str(map_driver_error("graph", error))
    assert "test_masking.py" in shown
    assert "RuntimeError: around it" in shown


async def test_what_the_driver_quotes_of_a_parameter_leaves_in_no_error(new_database) -> None:  # type: ignore[no-untyped-def]
    connection = await asyncpg.connect(new_database())
    with pytest.raises(asyncpg.DataError) as caught:
        await connection.fetchval("SELECT $1::int[]", [SECRET])
    await connection.close()
    assert SECRET in str(caught.value)
    assert SECRET not in str(map_driver_error("graph", caught.value)) + traceback_text(caught.value)


def test_what_pydantic_quotes_of_an_input_is_left_out() -> None:
    class Model(BaseModel):
        number: int
        key: SecretStr = SecretStr("")

    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"number": SECRET})
    assert SECRET in str(caught.value)
    assert error_text(caught.value) == "number: int_parsing"


def test_traceback_text_ends_where_causes_go_in_circles() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert traceback_text(one).count("ValueError") == 2
    assert "ExceptionGroup" in traceback_text(ExceptionGroup("all", [one, ValueError("three")]))
