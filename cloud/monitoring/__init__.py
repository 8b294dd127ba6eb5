"""Health and numbers of a cloud, for its operators."""
