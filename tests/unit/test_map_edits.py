"""Edits of map documents: one entry more, comments and layout kept where that is plain."""

import pytest

from syncline.errors import MapInvalid
from syncline.maps.document import read_map
from syncline.maps.edits import with_column, with_ignored

HEAD = "version: 1\nname: shop\ntables:\n  goods:  # sold\n    source: articles\n"


@pytest.mark.parametrize(
    ("before", "column", "ignored"),
    [
        ("", "    columns: {price: integer}\n", "    ignored: [price]\n"),
        ("    columns: [title]\n", "    columns: {price: integer, title: text}\n", "    ignored: [price]\n"),
        (
            "    columns: {title: text}  # of readers\n",
            "    columns: {price: integer, title: text}  # of readers\n",
            "    ignored: [price]\n",
        ),
        (
            "    columns:\n      # what readers see\n      title: text  # its name\n",
            "      price: integer\n      title: text  # its name\n",
            "    ignored: [price]\n",
        ),
        (
            "    ignored: [draft]  # ours\n",
            "    columns: {price: integer}\n",
            "    ignored: [price, draft]  # ours\n",
        ),
    ],
)
def test_an_entry_is_added_where_it_belongs(before: str, column: str, ignored: str) -> None:
    text = HEAD + before
    taken = with_column(text, "goods", "price", "integer")
    assert "  goods:  # sold\n" in taken
    assert column in taken
    left = with_ignored(text, "goods", "price")
    assert ignored in left
    assert read_map(left, source="x")["goods"].ignored[:1] == ("price",)


@pytest.mark.parametrize(
    "text",
    [
        '{"version": 1, "name": "shop", "tables": {"goods": {"source": "articles"}}}',
        "version: 1\nname: shop\ntables:\n  - {name: goods, source: articles}\n",
        HEAD + "    columns:\n      - {name: title, type: text}\n",
    ],
)
@pytest.mark.parametrize("name", ["price", "Odd Name", "on", 'a "b"', "é: #"])
def test_a_document_in_any_form_gets_the_entry(text: str, name: str) -> None:
    goods = read_map(with_column(text, "goods", name, "numeric(10,2)"), source="x")["goods"]
    assert {column.name: column.type for column in goods.columns}[name] == "numeric(10,2)"
    assert read_map(with_ignored(text, "goods", name), source="x")["goods"].ignored == (name,)


def test_a_column_that_the_map_cannot_have_is_refused() -> None:
    with pytest.raises(MapInvalid, match="goods"):
        with_column(HEAD, "goods", "id", "text")
