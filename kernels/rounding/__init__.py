"""Small floats to fp32 and back, on integer bits."""
