"""Mutators: each changes an input of one structure, and repairs what would refuse it first."""
