"""The fast and the plain path through a model, and the check that they agree."""
