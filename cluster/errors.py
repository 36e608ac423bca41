"""Errors that a command shows as one line. They stand apart because the modules that raise them import Ray."""


class NoRay(ConnectionError):
    """There is no Ray to work on: says what was looked for, and what to do."""
