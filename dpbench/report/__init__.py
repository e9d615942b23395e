"""Tables, plots and pictures of results."""

import dpbench.metrics  # noqa: F401 - registers the columns that reports read
