"""What a federation of many people costs its cloud, on paper, with measured constants."""
