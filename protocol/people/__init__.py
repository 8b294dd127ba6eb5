"""What is known of how people differ, and the few numbers in which one person is told."""
