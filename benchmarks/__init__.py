"""Measurements of the program itself. Each prints a table and writes a CSV. Not installed."""
