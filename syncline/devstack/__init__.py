"""The embedded development stack: real servers from wheels, started and stopped with one command."""
