"""Attacks that solve for the images in closed form, and say so where they did."""
