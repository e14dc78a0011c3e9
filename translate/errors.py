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

import errno

EXIT_FAULT = 70
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


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code and the message for an exception; the message is empty where the user needs none."""
    if isinstance(error, TranslateError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return EXIT_SIGINT, "interrupted"
    if isinstance(error, BrokenPipeError):
        return EXIT_PIPE, ""
    if is_out_of_memory(error):
        return TryAgainError.exit_code, (
            "out of memory; lower train.batch_tokens (training) or decode.batch_size and decode.beam (translating), "
            "or choose a smaller model"
        )
    if isinstance(error, OSError):
        return _explain_system(error)
    if (usage := getattr(error, "format_message", None)) is not None:  # typer's own errors share no public class
        context = getattr(error, "ctx", None)
        hint = f" (see: {context.command_path} --help)" if context is not None else ""
        return UsageError.exit_code, f"{usage().rstrip('.')}{hint}"
    return EXIT_FAULT, (
        f"{type(error).__name__}: {error}; this is a fault of translate: run the same command with --debug after "
        "'translate' and report what it prints"
    )


def escaped(text: str) -> str:
    """Text as it may be shown on a terminal: line ends stay, other control characters become escapes."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, or torch on either device, could not get memory. torch need not be imported to tell."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error)  # by the host, by CUDA and Triton, by cuBLAS
    return isinstance(error, RuntimeError) and any(
        words in said for words in ("allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
    )


def _explain_system(error: OSError) -> tuple[int, str]:
    name = f"{error.filename}: " if error.filename is not None else ""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError.exit_code, f"{name}{reason}; make room and run the command again"
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP):
        return MissingInputError.exit_code, f"{name}{reason}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError.exit_code, f"{name}{reason}; choose another place or its permissions"
    return StorageError.exit_code, f"{name}{reason}"
