"""What several stage kinds share: the one projection, the one attention, the one gated MLP."""
