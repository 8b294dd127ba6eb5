"""The doctor of an edge: what is wrong with a person's folder and programs, and what to do."""
