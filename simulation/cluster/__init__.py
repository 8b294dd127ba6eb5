"""Workers on a Ray cluster, which units of work are handed to."""
