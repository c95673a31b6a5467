"""Fixtures of the whole suite; they live in the shipped test kit, so that plugin authors have them too."""

pytest_plugins = ["syncline.testing.postgres", "syncline.testing.graphs", "syncline.testing.temporal"]
