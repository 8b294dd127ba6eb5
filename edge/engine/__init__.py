"""Token rows through the frozen model: training and applying shifts. Knows no person and no disk."""
