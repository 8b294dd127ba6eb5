"""Bounds on the time and memory that a base model's files may take, whoever wrote them."""
