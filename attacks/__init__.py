"""Attacks that rebuild images from a released gradient."""
