"""Sums over clients of which nobody sees the parts: packed Shamir shares, sealed to a committee."""
