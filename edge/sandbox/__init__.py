"""The SuperNode's sandbox: what runs in it, and both ends of its one way to the cloud."""

CLOUD_PORT = 8443
"""Port of the sandbox's loopback that leads to the cloud."""
HOME = "/home/edge"
SCRATCH = ("/tmp", HOME)
"""Folders of the sandbox that can be written; they are in memory."""
