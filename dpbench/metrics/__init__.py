"""Image metrics, the one assignment they share, and the no-gradient floors."""
