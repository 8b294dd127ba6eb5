"""The forms in which a personal shift is fitted, and what a release says of them."""
