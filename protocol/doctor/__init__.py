"""What `doctor` of cloud and edge have in common: findings, and checks of a machine and its files."""
