"""Joining a cloud: a person's folder made from an invitation, and the node's key, registered by the cloud."""
