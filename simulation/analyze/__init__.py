"""Delta-vectors: how a user's history moves hidden states, their directions, and controls."""
