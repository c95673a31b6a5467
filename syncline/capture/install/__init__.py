"""Adoption: preparing the write-db tables of a table map for capture, online, and undoing it.

It gives capture to tables that are there already, and to those that a migration has just made.
"""
