"""Every method of personalization side by side, on the same model, users, items, order and seeds."""
