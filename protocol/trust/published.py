"""Names and sizes of the files that a cloud publishes: its releases, and the pointer to the one in force."""

POINTER_FILE = "in-force.json"
"""Name of the pointer's file beside the releases."""
MAX_POINTER_BYTES = 1 << 18
"""Largest pointer accepted, in bytes."""


def release_file(version: int) -> str:
    """Return the name of a release's file.

    Args:
        version: Version of the release.
    """
    return f"{version:08d}.safetensors"
