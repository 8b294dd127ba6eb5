"""Releases at an edge: fetched by a program that is trusted with nothing, verified and kept by the agent."""
