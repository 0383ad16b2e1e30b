"""SafePatching (arXiv 2405.13820): retention, top-k by score, the difference of the two sets."""
