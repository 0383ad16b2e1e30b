"""The whole story on a model small enough to train while one waits (needs torch)."""
