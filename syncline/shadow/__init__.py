"""Shadows: a second provider's result of a graph, next to the live one."""
