"""Base models: loading, fingerprints, and their decoder layers."""
