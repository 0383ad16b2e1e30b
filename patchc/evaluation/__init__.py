"""Evaluation: requests are put to a model, and its replies are judged and counted."""
