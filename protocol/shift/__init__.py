"""The shift and its mathematics: shapes, positions, injection, packing, files."""
