"""Fuzzing of everything that reads a stranger's file (docs/explanation/design/fuzzing.md)."""
