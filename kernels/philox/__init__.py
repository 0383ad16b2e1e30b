"""Random draws addressed by seed, stream and flat index."""
