"""The settings layer: what every group of settings shares, and how a mistake in one is told."""
