"""One cell: from what was asked for to the rows of its result."""
