"""One person's machine: the agent that owns history, base model and personal shift."""
