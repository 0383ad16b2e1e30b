"""Derivation of the two tuned models and their scores from one aligned base (needs torch)."""
