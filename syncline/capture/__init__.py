"""Change data capture on the write-db: installing it, and listening for notifications."""
