"""Fingerprints: one cause, one fingerprint, whatever the rows hold."""

import re
import time

import pytest

from syncline.engine.dead_letters import fingerprint
from syncline.masking import without_values


@pytest.mark.parametrize(
    ("sqlstate", "one", "other"),
    [
        ("22P02", 'invalid input syntax for type uuid: "abc"', 'invalid input syntax for type uuid: "x y"'),
        (
            "22P02",
            'invalid input syntax for type uuid: "abc"',
            'invalid input syntax for type uuid: "a "b" c"',
        ),
        ("22P02", 'invalid input value for enum color: ""', 'invalid input value for enum color: "re\nd: "'),
        ("22P02", 'malformed array literal: "a"', 'malformed array literal: "column "b""'),
        ("22P02", 'malformed array literal: "a"', 'malformed array literal: "cut off'),
        (
            "22003",
            'value "99999999999" is out of range for type integer',
            'value "-3e99" is out of range for type integer',
        ),
        ("22P02", 'column must not be "a', 'column must not be "bb'),
        (
            "54000",
            'index row size 2712 exceeds btree version 4 maximum 2704 for index "nodes_key"',
            'index row size 8191 exceeds btree version 4 maximum 2704 for index "nodes_key"',
        ),
        (
            "22021",
            'invalid byte sequence for encoding "UTF8": 0x00',
            'invalid byte sequence for encoding "UTF8": 0xff',
        ),
        (
            "P0001",
            "no title for 0e0d21f4-3b2a-4d1e-9a55-6a50f10cb5a0 at 2024-01-31 10:00",
            "no title for aaaaaaaa-3b2a-4d1e-9a55-6a50f10cb5a0 at 2025-11-03 07:59",
        ),
        ("P0001", "title 'a' is taken", "title 'b, c' is taken"),
        (
            "23505",
            'duplicate key value violates unique constraint "k"\nDETAIL:  Key (key)=(a) already exists.',
            'duplicate key value violates unique constraint "k"\nDETAIL:  Key (key)=(b) already exists.',
        ),
    ],
)
def test_rows_with_different_values_share_a_fingerprint(sqlstate: str, one: str, other: str) -> None:
    assert fingerprint(sqlstate, one, None) == fingerprint(sqlstate, other, None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            'new row for relation "nodes" violates check constraint "nodes_weight"',
            'new row for relation "nodes" violates check constraint "nodes_title"',
        ),
        (
            'null value in column "title" of relation "nodes" violates not-null constraint',
            'null value in column "label" of relation "nodes" violates not-null constraint',
        ),
        (
            'null value in column "title" of relation "nodes" violates not-null constraint',
            'null value in column "title" of relation "facts" violates not-null constraint',
        ),
        ('invalid input syntax for type uuid: "a"', 'invalid input syntax for type integer: "a"'),
        ('type "a" does not exist', 'type "b" does not exist'),
        ('index row size 1 exceeds 2 for index "a_1"', 'index row size 1 exceeds 2 for index "a_2"'),
        (
            "value too long for type character varying(10)",
            "value too long for type character varying(20)",
        ),
        ("integer out of range", "bigint out of range"),
        ("permission denied for table nodes", "permission denied for table facts"),
        ("function md5(integer) does not exist", "function sha256(integer) does not exist"),
    ],
)
def test_two_causes_have_two_fingerprints(one: str, other: str) -> None:
    assert fingerprint("22000", one, None) != fingerprint("22000", other, None)


def test_two_constraints_and_two_sqlstates_have_two_fingerprints() -> None:
    message = "the same words"
    assert len({fingerprint("23514", message, name) for name in (None, "a", "b")}) == 3
    assert fingerprint("23514", message, "a") != fingerprint("23505", message, "a")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ('invalid input syntax for type integer: "s3cret"', "invalid input syntax for type integer …"),
        ('value "123" is out of range for type integer', "… is out of range for type integer"),
        (
            "order 4711 of 'ada' has no customer\nDETAIL:  Failing row (s3cret)",
            "order … of … has no customer",
        ),
        (
            'new row for relation "nodes" violates check constraint "nodes_weight"',
            'new row for relation "nodes" violates check constraint "nodes_weight"',
        ),
        ("value too long for type character varying(10)", "value too long for type character varying(10)"),
    ],
)
def test_a_message_is_told_with_its_names_and_without_its_values(message: str, told: str) -> None:
    assert without_values(message) == told
    assert without_values(told) == told


def test_messages_that_quote_megabytes_are_no_work() -> None:
    started = time.process_time()
    for repeated in ('value "', '"', "'", "type ", 'column "', "\nDETAIL: x", "1", "a-"):
        fingerprint("22P02", repeated * 200_000, None)
    assert time.process_time() - started < 3
    long = [f'value "{digit * 5_000}" is out of range for type integer' for digit in "12"]
    assert len({fingerprint("22003", message, None) for message in long}) == 1


def test_fingerprint_is_twelve_hex_digits_of_any_text() -> None:
    # A wire format of its own: operators keep them in tickets, so the same error keeps its fingerprint.
    message = 'new row for relation "n" violates check constraint "c"'
    assert fingerprint("23514", message, "c") == "9d8f7223e608"
    for message in ("", '"', "'", 'a: "', "\0", "é " * 10_000):
        assert re.fullmatch("[0-9a-f]{12}", fingerprint("XX000", message, None))
