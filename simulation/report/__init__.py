"""Statistics and pages that the reports of all studies share."""
