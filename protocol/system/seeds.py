"""Seeds of random generators that depend on names alone, never on the order in which they are drawn."""

import hashlib


def seed_from(text: str) -> int:
    """Return a seed of 63 bits: the leading bits of the SHA-256 of `text`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
