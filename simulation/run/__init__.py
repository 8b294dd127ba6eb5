"""Simulated federations: settings, clients, phases and report of a run."""
