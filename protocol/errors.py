"""The one exception type that means "the input is wrong, not the program"."""


class InputError(ValueError):
    """A user's mistake, told in one line; command lines print it and exit with code 2."""


class RunFailed(Exception):
    """A run, or a program it needs, did not come about; told in one line, exit code 1."""
