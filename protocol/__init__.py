"""What cloud and edge must agree on bit for bit: shifts, tasks, base models, messages."""
