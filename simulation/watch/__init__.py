"""A live page of a run folder, read only, on this machine alone."""
