"""Errors a user can act on: one line with the file or option, the value, and the remedy."""


class TagclipError(Exception):
    """Base of every error this project raises on purpose. Command-line tools print it as one line and exit."""

    exit_code = 1


class UsageError(TagclipError):
    """A wrong option, file or value given by the user (exit code 2)."""

    exit_code = 2


class ImageError(TagclipError):
    """One image that cannot be read or used. Recorded in the failures, never ends a run unless strict."""


class WeightsError(UsageError):
    """Weights that cannot be found, read, or that describe an unsupported architecture."""


class VocabularyError(UsageError):
    """Class names that are missing, duplicate, empty or overlong."""


class RunError(TagclipError):
    """A run that cannot continue: another configuration's folder, a full disk, a damaged artefact."""


class RequirementError(UsageError, ImportError):
    """A package, or a system library that a package wants, is missing on this machine."""


def first_line(error: BaseException) -> str:
    """What a foreign error says in its first line, for one-line messages; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
