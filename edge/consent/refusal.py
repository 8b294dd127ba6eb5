"""Refusals of the guard."""

from fedperfit.protocol.system.errors import InputError


class Refused(InputError):
    """A request that the owner has not agreed to. Its text is for the owner; the cloud gets its type."""
