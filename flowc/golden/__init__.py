"""Recorded outputs that a team keeps beside its specs: what a model gave, and whether it still does."""
