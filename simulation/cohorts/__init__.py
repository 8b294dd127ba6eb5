"""Cohorts of simulated clients that act side by side, in one process or on a cluster."""
