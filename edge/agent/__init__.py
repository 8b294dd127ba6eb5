"""One person's agent: history, consent, training and answers."""
