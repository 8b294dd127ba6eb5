"""The audit: attacks on what leaves an edge or may be stolen from it, each with its controls."""
