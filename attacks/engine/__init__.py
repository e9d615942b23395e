"""What turns a problem, a start and a schedule into iterations, on one of several backends."""

from attacks.engine.choice import ENGINES, auto, checked
from attacks.engine.programs import forget
from attacks.engine.schedule import Schedule, step_decay, warm_cosine
from attacks.engine.search import Found, Outcome, search

__all__ = [
    "ENGINES",
    "Found",
    "Outcome",
    "Schedule",
    "auto",
    "checked",
    "forget",
    "search",
    "step_decay",
    "warm_cosine",
]
