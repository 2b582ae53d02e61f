"""The error of a play that cannot go on."""

from driftline.runtime.errors import DriftlineError


class PlaybackError(DriftlineError):
    """The play stopped: the message says what was waited for, and where to look."""
