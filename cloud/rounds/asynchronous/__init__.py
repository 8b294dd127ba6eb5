"""Rounds that wait for nobody: the shift moves on with every so many updates."""
