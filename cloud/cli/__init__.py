"""The command line of the cloud."""
