"""The commands of `flowc golden`, a module each, and what they share."""
