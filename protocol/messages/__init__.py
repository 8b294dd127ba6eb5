"""What messages between cloud and edge carry: keys, settings, statistics, the byte ledger."""
