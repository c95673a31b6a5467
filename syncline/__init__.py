"""Syncline keeps derived stores in step with a write-db: what anyone outside the application may import."""
