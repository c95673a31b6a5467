"""Keys of rejected rows, as an operator types them."""

import pytest

from syncline.maps.schema_map import SchemaMap
from syncline.maps.table_map import TableMap
from syncline.operator.schema import known_form

SHOP = SchemaMap(
    name="shop",
    tables=(
        TableMap(name="orders", source="o", key=("shop", "nr"), types={"shop": "uuid", "nr": "numeric"}),
    ),
)
TYPED = ("6BA7B811-9DAD-11D1-80B4-00C04FD430C8", "1.50")


@pytest.mark.parametrize(
    ("table", "typed", "form"),
    [
        ("orders", TYPED, (TYPED[0].lower(), "1.5")),
        ("orders", ("no uuid", "1.5"), ("no uuid", "1.5")),
        ("orders", ("one",), ("one",)),
        ("gone", TYPED, TYPED),
    ],
)
def test_a_key_is_taken_as_its_type_writes_it(
    table: str, typed: tuple[str, ...], form: tuple[str, ...]
) -> None:
    assert known_form(SHOP, table, typed) == form
