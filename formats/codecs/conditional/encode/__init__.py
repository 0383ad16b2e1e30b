"""The encoder of codec 3."""
