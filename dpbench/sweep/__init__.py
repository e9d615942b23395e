"""Many cells: what is asked for, in which order, on which machine, and how far it is."""
