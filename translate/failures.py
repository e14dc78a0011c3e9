"""What went wrong, in one message and one exit code, whatever kind of exception it was."""

import errno

from translate.errors import (
    EXIT_PIPE,
    EXIT_SIGINT,
    MissingInputError,
    OutputError,
    StorageError,
    TranslateError,
    TryAgainError,
    UsageError,
)

EXIT_FAULT = 70


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code and the message for an exception; the message is empty where the user needs none."""
    if isinstance(error, TranslateError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return EXIT_SIGINT, "interrupted"
    if isinstance(error, BrokenPipeError):
        return EXIT_PIPE, ""
    if _is_out_of_memory(error):
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


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, or torch on either device, could not get memory. torch need not be imported to tell."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


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
