"""What methods of the comparison are built of: adapters, shifts, prompts and a plain training loop."""
