"""What the sandboxes of cloud and edge have in common: how they are made, and how they end."""
