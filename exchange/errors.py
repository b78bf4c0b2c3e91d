"""Whose fault it was. Market outcomes are not errors: they are Reasons in events."""


class ConfigurationError(ValueError):
    """What you asked for cannot be: the message says what, where and what to do."""


class JournalError(RuntimeError):
    """The journal on the disk is not what was written."""


class TornJournalError(JournalError):
    """The journal ends in the middle of a record, or in records that were never wholly written.

    `sound` is the number of commands before the tear.
    """

    def __init__(self, message: str, sound: int) -> None:
        super().__init__(message)
        self.sound = sound


class VenueError(RuntimeError):
    """The venue could not start, or stopped when it should not have."""
