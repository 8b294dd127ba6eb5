"""The server side: admission, aggregation, rounds, checkpoints and releases of the collective shift."""
