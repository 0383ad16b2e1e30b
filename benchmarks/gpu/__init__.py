"""All that a CUDA device has to show, in nine minutes: ``make gpu``."""
