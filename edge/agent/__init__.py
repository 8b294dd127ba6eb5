"""One person's agent: their history, training and answers, choice and renewal of the personal shift."""
