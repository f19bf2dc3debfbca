"""One exception tree; every message says what is wrong, what it got, and what to do.

CarvanaEnsError                 exit code 1
├── UsageError                  exit code 2: an option or a name that cannot be meant
├── DataError                   photos, masks, ids, groups, folds, CSV files
│   └── RLEError                a run-length encoding that breaks the dialect's rules
├── StoreError                  a probability store that is missing, damaged, busy or not what it claims
├── ProjectError                ensemble.toml and the files beside it
│   └── StaleError              a result whose sources have changed since
├── PluginError                 a plugin that cannot be found, loaded or trusted
└── TrainingError               training or prediction that cannot go on
"""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind where it has none: what a message of ours quotes of others'."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class CarvanaEnsError(Exception):
    """Base of everything that carvana-ens raises on purpose; the message is one line for the user."""

    exit_code = 1


class UsageError(CarvanaEnsError):
    """The command or the call asks for something that cannot be meant."""

    exit_code = 2


class DataError(CarvanaEnsError):
    """A photo, mask, id, group, fold table or CSV file that cannot be used as it is."""


class RLEError(DataError):
    """A run-length encoding that breaks the rules of its dialect."""


class StoreError(CarvanaEnsError):
    """A probability store that is missing, incomplete, damaged, busy or of another schema."""


class ProjectError(CarvanaEnsError):
    """A project folder or its ensemble.toml that cannot be used as it is."""


class StaleError(ProjectError):
    """A result that was made from sources which have changed since."""


class TrainingError(CarvanaEnsError):
    """Training or prediction that cannot go on (a map with NaN, a checkpoint that does not fit)."""


class PluginError(CarvanaEnsError):
    """A plugin that is missing, broken or ambiguous.

    Carries what is known of the plugin, so that listings can show it: ``name``, ``distribution``,
    ``version`` (None when unknown) and ``reason`` (the cause in one line).
    """

    def __init__(
        self,
        message: str,
        *,
        name: str = "",
        distribution: str | None = None,
        version: str | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.name = name
        self.distribution = distribution
        self.version = version
        self.reason = reason or message
