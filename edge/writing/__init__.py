"""Free text under shifts: continued piece by piece."""
