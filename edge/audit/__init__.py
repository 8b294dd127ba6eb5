"""The owner's record: every request that came, what was decided, and every message that left."""
