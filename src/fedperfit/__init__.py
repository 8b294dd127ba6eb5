"""Federated personalization of language models: collective and personal shifts of a frozen model."""
