"""Shifts in folders that other programs read: a release with its model card, and pyreft's own form."""
