"""The doctor of a cloud: what is wrong with it, and what to do."""
