"""What a command shows as one line; apart from what raises it, whose imports take seconds."""


class NoRay(ConnectionError):
    """There is no Ray to work on: says what was looked for, and what to do."""
