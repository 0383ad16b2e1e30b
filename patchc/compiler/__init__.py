"""Compiles a source of changes into a patch file: reads, compares, codes and assembles chunks."""
