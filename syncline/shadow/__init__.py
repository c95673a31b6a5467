"""Shadows: a second provider's result of a graph, beside the live one."""
