"""Benchmark of our training beside pyreft's and LoRA's: same model, data, batches, epochs and seed."""
