"""Files, locks, processes: what every program needs and no experiment is about."""
