"""The command line: each command parses, calls one function of :mod:`patchc`, and renders."""
