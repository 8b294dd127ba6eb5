"""Stacks of what people differ in, trained side by side under a prior over people."""
