"""The spec: what a file says outside of its stages, with the place of every entry."""
