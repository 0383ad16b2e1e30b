"""A causal language model that computes layer by layer, with weights from memory or from files."""
