"""Real stores, from the test kit of Syncline."""

pytest_plugins = ["syncline.testing.postgres", "syncline.testing.graphs"]
