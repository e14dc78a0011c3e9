"""Every failure a user can cause, and the exit code a batch scheduler sees for it.

The codes follow sysexits.h. A message is one or two plain sentences: where, what was found, what to do.

    TranslateError
    |- UsageError          64  the command line itself is wrong
    |- DataError           65  text, a tokenizer or encoded arrays cannot be used
    |  `- CheckpointError  65  a checkpoint is damaged, foreign or of another shape
    |- MissingInputError   66  a file or run directory is not there or cannot be read
    |- OutputError         73  a file cannot be created
    |- StorageError        74  reading or writing failed half-way (disk full, device error)
    |- TryAgainError       75  the same command may work later (run in use, out of memory)
    `- ConfigError         78  the configuration is not sound
"""

EXIT_SIGINT = 130
EXIT_PIPE = 141
EXIT_SIGTERM = 143


class TranslateError(Exception):
    """A failure with a message for the user; `exit_code` is what the process returns."""

    exit_code = 70


class UsageError(TranslateError):
    """The command line cannot be understood."""

    exit_code = 64


class DataError(TranslateError):
    """Text, a tokenizer or encoded arrays cannot be used as they are."""

    exit_code = 65


class CheckpointError(DataError):
    """A checkpoint is damaged, foreign, or does not fit the model."""


class MissingInputError(TranslateError):
    """Something to be read is not there, or may not be read."""

    exit_code = 66


class OutputError(TranslateError):
    """Something to be written cannot be created."""

    exit_code = 73


class StorageError(TranslateError):
    """Reading or writing failed half-way."""

    exit_code = 74


class TryAgainError(TranslateError):
    """Nothing is wrong with the request; the same command may succeed later."""

    exit_code = 75


class ConfigError(TranslateError):
    """The configuration is not sound; the message lists every problem found."""

    exit_code = 78


class Interrupted(TranslateError):
    """A signal asked the process to stop; everything worth keeping has been saved."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
