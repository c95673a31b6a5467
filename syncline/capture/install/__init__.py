"""Adoption: installs capture on the write-db tables of a table map, online, and removes it.

It works on existing tables and on tables that a migration has just created.
"""
