"""What the owner agreed that the cloud may ask, and the guard that refuses the rest."""
