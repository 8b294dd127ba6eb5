"""The attacks, one file each, found by name."""
