"""Rounds of stage 1: federation, aggregation, checkpoints."""
