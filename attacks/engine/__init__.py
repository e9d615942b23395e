"""What turns a problem, a start and a schedule into iterations, on one of several backends."""

from attacks.engine.choice import ENGINES, auto, checked
from attacks.engine.failures import of_the_card, out_of_memory
from attacks.engine.programs import forget, kept
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
    "kept",
    "of_the_card",
    "out_of_memory",
    "search",
    "step_decay",
    "warm_cosine",
]
