"""An inversion that is learnt: public images, what the defence makes of their gradients, and a network."""

from attacks.learned import attack  # noqa: F401 (registers it)
