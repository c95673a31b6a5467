"""Modules import each other in one direction: no circle, type-only and late imports included."""

from tests.kit.house import ROOT, circle_of, import_graph


def test_modules_import_without_a_circle() -> None:
    assert circle_of(import_graph(ROOT)) == []


def test_circle_of_type_only_imports_is_found() -> None:
    graph = import_graph(ROOT)
    assert "syncline.registry" in graph["syncline.control.services"]
    graph["syncline.registry"] |= {"syncline.control.services"}
    assert set(circle_of(graph)) >= {"syncline.registry", "syncline.control.services"}
