"""The test kit, for our suite and a plugin author's: real servers as pytest fixtures, and conformance."""

from syncline.testing.conformance import exercise_provider

__all__ = ["exercise_provider"]
