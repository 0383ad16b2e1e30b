"""Derivation: fine-tuned models and their scores, made from one aligned base (needs torch)."""
