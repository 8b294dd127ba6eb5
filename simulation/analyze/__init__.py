"""What a history does inside the frozen model: delta-vectors, their directions, and controls."""
