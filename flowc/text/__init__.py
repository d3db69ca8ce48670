"""Untrusted text into values that know their place: YAML, JSON, and the limits of both."""
