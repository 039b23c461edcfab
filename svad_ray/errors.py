"""The errors a person meets: one small tree. Every message says what was found, what was expected and what to do next."""

from __future__ import annotations


class SvadError(Exception):
    """Base of every error that svad-ray raises on purpose.

    Args:
        found: What was met, in one sentence.
        expected: What would have been right; may be empty where ``found`` already implies it.
        remedy: What the reader can do now.
    """

    exit_code = 1

    def __init__(self, found: str, *, expected: str = "", remedy: str = "") -> None:
        self.found, self.expected, self.remedy = found, expected, remedy
        parts = [found, f"Expected: {expected}" if expected else "", f"Try: {remedy}" if remedy else ""]
        super().__init__("\n".join(part for part in parts if part))

    def __reduce__(self):  # keyword-only arguments do not survive the default pickling between processes
        return _rebuild, (type(self), self.found, self.expected, self.remedy)


def _rebuild(kind: type[SvadError], found: str, expected: str, remedy: str) -> SvadError:
    return kind(found, expected=expected, remedy=remedy)


class InputError(SvadError):
    """The caller's file or option cannot be used as it is."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration key or value is unknown or out of range."""


class QualityRejected(SvadError):
    """The input is readable, but the result would not be what the caller wants (no person, feet cut off, ...)."""

    exit_code = 3


class WeightsMissing(SvadError):
    """A model file is not there; the message names the file, its stage, its source, its licence and the alternative."""

    exit_code = 4


class BackendUnavailable(SvadError):
    """A package or a device that the chosen backend needs is missing."""

    exit_code = 5


class StageFailed(SvadError):
    """A stage ended without a result; the cause is chained."""

    exit_code = 6


class Unanswered(StageFailed):
    """Nobody took the work: a service is away or busy. The work itself is not at fault and may be tried again later."""


class StoreError(SvadError):
    """The artefact store cannot be read or written (disk full, no permission, corrupt artefact)."""

    exit_code = 7


class ArtefactDamaged(StoreError):
    """An artefact is not there, or not what was committed. ``key`` names it while the error stays in its process."""

    key: str = ""
