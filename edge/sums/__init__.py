"""An edge's part in sums of which nobody sees the parts: as contributor, and as member of the committee."""
