"""What noise promises, for the cloud's sums of clients and for a person's own shift."""
