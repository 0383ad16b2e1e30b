"""Scales of a recipe, fitted to requests on the loaded model."""
