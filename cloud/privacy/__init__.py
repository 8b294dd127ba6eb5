"""User-level differential privacy of the collective shift: mechanism, accountant, ledger."""
