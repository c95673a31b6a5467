"""The vector outbox, and draining it into the vector store."""
