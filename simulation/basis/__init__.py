"""Bases for updates, made of public items that belong to none of the clients."""
