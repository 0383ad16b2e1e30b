"""Fits the scales of a recipe, which multiply its deltas, to requests on the loaded model."""
