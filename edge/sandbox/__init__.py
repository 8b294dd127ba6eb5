"""The SuperNode's sandbox: what runs in it, and both ends of its one way to the cloud."""

CLOUD_PORT = 8443
"""Port of the sandbox's loopback that leads to the cloud."""
MIRROR_PORT = 8444
"""Port of the fetcher's that leads to the mirror which its owner agreed to, where there is one."""
HOME = "/home/edge"
SCRATCH = ("/tmp", HOME)
"""Folders of the sandbox that can be written; they are in memory."""
