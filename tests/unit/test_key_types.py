"""Types of keys: which there are, the form of a value that a person gives, and the order of forms."""

import pytest

from syncline.maps.key_types import KeyType, Kind, element_type, key_place, key_type


@pytest.mark.parametrize(
    ("spelled", "kind"),
    [
        ("text", Kind.TEXT),
        ("character varying(40)", Kind.TEXT),
        ("VARCHAR (40)", Kind.TEXT),
        ("uuid", Kind.UUID),
        ("int8", Kind.INTEGER),
        ("numeric(10, 2)", Kind.NUMERIC),
        ("date", Kind.DATE),
        ("bytea", Kind.BYTES),
        ("jsonb", None),
        ("timestamp(3) with time zone", Kind.TIMESTAMPTZ),
        ("timestamp", Kind.TIMESTAMP),
        ("time", None),
        ("text[]", None),
    ],
)
def test_types_that_keys_may_have(spelled: str, kind: Kind | None) -> None:
    found = key_type(spelled)
    assert (found and found.kind) == kind


def test_elements_of_arrays() -> None:
    assert element_type("uuid[]") == KeyType("uuid", Kind.UUID)
    assert element_type("jsonb") == KeyType("text", Kind.TEXT)
    assert element_type("text") is None
    assert element_type("json[]") is None


@pytest.mark.parametrize(
    ("type_", "given", "form"),
    [
        ("text", " A ", " A "),
        ("uuid", "0000000A-0000-4000-8000-00000000000F", "0000000a-0000-4000-8000-00000000000f"),
        ("bigint", " 007 ", "7"),
        ("numeric", "1.500", "1.5"),
        ("numeric", "-0.0", "0"),
        ("numeric", "1e3", "1000"),
        ("numeric", "100", "100"),
        ("numeric", "nan", "NaN"),
        ("date", "2020-02-29", "2020-02-29"),
        ("date", "0044-03-15 BC", "0044-03-15 BC"),
        ("date", "infinity", "infinity"),
        ("bytea", "\\x0AfF", "0aff"),
        ("timestamp", "2020-02-29T08:00:00.250", "2020-02-29 08:00:00.25"),
        ("timestamp", "2020-02-29", "2020-02-29 00:00:00"),
        ("timestamp", "0044-03-15 00:00:00 BC", "0044-03-15 00:00:00 BC"),
        ("timestamptz", "2020-02-29 08:00+02", "2020-02-29 06:00:00+00"),
        ("timestamptz", "-infinity", "-infinity"),
    ],
)
def test_the_form_of_what_a_person_gives(type_: str, given: str, form: str) -> None:
    found = key_type(type_)
    assert found is not None
    assert found.canonical(given) == form


@pytest.mark.parametrize(
    ("type_", "given"),
    [
        ("uuid", "x"),
        ("integer", "1.5"),
        ("numeric", "x"),
        ("date", "2020-02-31"),
        ("bytea", "0"),
        ("timestamp", "2020-02-29 08:00+00"),
        ("timestamptz", "2020-02-29 08:00"),
    ],
)
def test_what_is_no_value_is_refused(type_: str, given: str) -> None:
    found = key_type(type_)
    assert found is not None
    with pytest.raises(ValueError, match=r".+"):
        found.canonical(given)


@pytest.mark.parametrize(
    ("type_", "ascending"),
    [
        ("text", ["A", "B", "a", "é"]),
        ("bigint", ["-10", "-9", "9", "10"]),
        ("numeric", ["-Infinity", "-1.5", "2", "10", "Infinity", "NaN"]),
        (
            "timestamptz",
            [
                "-infinity",
                "0044-03-15 00:00:00+00 BC",
                "2020-02-29 08:00:00+00",
                "2020-02-29 08:00:00.5+00",
                "2020-02-29 08:00:01+00",
                "12020-01-01 00:00:00+00",
                "infinity",
            ],
        ),
        ("date", ["-infinity", "0044-03-15 BC", "0001-01-01", "2020-02-29", "12020-01-01", "infinity"]),
    ],
)
def test_forms_are_put_in_the_order_of_capture(type_: str, ascending: list[str]) -> None:
    found = key_type(type_)
    assert found is not None
    descending = list(reversed(ascending))
    assert sorted(descending, key=lambda form: key_place([form], [found])) == ascending
