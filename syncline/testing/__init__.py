"""The test kit: real servers as pytest fixtures, for our suite and for a plugin author's."""
