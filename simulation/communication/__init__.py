"""Score against bytes: ways to send a federation's updates, on the same clients, rounds and items."""
