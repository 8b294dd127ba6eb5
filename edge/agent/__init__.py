"""One person's agent: history, training and answers, choice and renewal of the personal shift."""
