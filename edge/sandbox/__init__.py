"""The SuperNode's sandbox: what runs in it, and both ends of its one way to the cloud."""

CLOUD_PORT = 8443
"""Port of the sandbox's loopback that leads to the cloud."""
