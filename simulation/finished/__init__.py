"""Finished runs beside each other: over simulated time, and over the same people."""
