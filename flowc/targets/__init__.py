"""Targets: one file each says what a runtime runs, as data."""
