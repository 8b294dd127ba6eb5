"""Private things sealed at rest: personal shifts, learned items and the key that seals them."""
