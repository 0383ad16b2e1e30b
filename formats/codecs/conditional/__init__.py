"""Codec 3: changes coded given the words that they apply to."""
