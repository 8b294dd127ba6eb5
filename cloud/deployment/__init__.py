"""A cloud that stays up: SuperLink behind a proxy, enrolment, runs and releases."""
