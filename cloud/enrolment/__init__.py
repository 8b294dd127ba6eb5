"""Enrolment: which nodes may take part, and what their owners are asked to agree to."""
