"""Rows that ship: every file in this folder is searched for them."""
