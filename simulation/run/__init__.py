"""One simulated federation: its settings, clients, phases and report."""
