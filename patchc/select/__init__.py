"""From scores to masks: which tensors are candidates and which of their entries are selected."""
