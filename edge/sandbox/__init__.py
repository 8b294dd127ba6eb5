"""What runs in the SuperNode's sandbox of ours: limits, the way to the cloud, the installed ClientApp."""

CLOUD_PORT = 8443
"""Port of the sandbox's loopback that leads to the cloud."""
