"""An agent that stays up: enrolment, the confined SuperNode, the two sockets, verified releases."""
