"""Table map -> SQL."""
