"""The decoder of codec 3."""
