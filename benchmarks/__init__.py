"""What is measured of the program itself; each prints a table and writes a CSV. Not installed."""
