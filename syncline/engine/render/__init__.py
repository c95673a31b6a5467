"""Rendering: table map -> SQL."""
