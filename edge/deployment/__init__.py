"""Deployment of an agent that stays up: enrolment, confined SuperNode, two sockets, verified releases."""
