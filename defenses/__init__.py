"""Defences a client applies to its gradient before it is released."""
