"""Parts of a benchmark run: what each measures, and the table it prints."""
