"""Asking clients, and what their replies may hold."""
