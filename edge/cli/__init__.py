"""The command line of the edge."""
