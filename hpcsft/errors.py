"""Every error that hpcsft raises on purpose.

    HpcsftError                exit 1    something foreseen went wrong; carries a hint
    ├── SpecError              exit 2    the spec is invalid; carries every problem at once
    ├── InputError             exit 2    a file that the spec names is missing, empty or of the wrong shape
    ├── PreflightError         exit 2    this cluster or machine is not fit for the spec; carries every error at once
    ├── ClusterError           exit 3    Slurm does not answer
    │   └── UnclearError       exit 3    it did not say whether it has taken a job
    ├── SubmissionError        exit 1    Slurm answers, and refuses the job
    ├── RunNotFoundError       exit 102  no such run directory
    ├── StageError             exit 1    a stage cannot go on (bad data, broken checkpoint, no judge, ...)
    ├── Stopped                exit 75   a stage was told to stop, has kept what it made, and can go on later
    ├── Waiting                exit 77   a stage needs what only a person can give, and has kept what it made
    └── Fenced                 exit 76   a newer attempt at the same task has taken over

Commands print these as `error:` and `hint:` lines without a traceback; a traceback is only for what nobody foresaw.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpcsft.secrets import scrubbed

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_INVALID = 2
EXIT_NO_SLURM = 3
EXIT_STOPPED = 75
EXIT_FENCED = 76
EXIT_WAITING = 77
EXIT_STAGE_FAILED = 100
EXIT_UNFINISHED = 101
EXIT_NO_RUN = 102
EXIT_CANCELLED = 103
EXIT_RUN_WAITING = 104


class HpcsftError(Exception):
    """Base of all foreseen errors: `message` says what was wrong and where, `hint` what to do next."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint

    def name_run(self, run_dir: str) -> None:
        """Put the run's directory into the hint where it says RUN_DIR, so that commands can be copied."""
        self.hint = self.hint and self.hint.replace("RUN_DIR", run_dir)

    def lines(self) -> list[str]:
        """The error as a user sees it."""
        return [f"error: {self.message}"] + ([f"hint: {self.hint}"] if self.hint else [])


@dataclass(frozen=True)
class Problem:
    """One mistake in a spec: where it is, what is wrong, what would be right."""

    path: str
    message: str
    hint: str | None = None


class SpecError(HpcsftError):
    """The spec is invalid. All its problems are reported together."""

    exit_code = EXIT_INVALID

    def __init__(self, source: str, problems: Sequence[Problem]):
        self.source = source
        self.problems = tuple(problems)
        noun = "problem" if len(self.problems) == 1 else "problems"
        super().__init__(f"{source}: {len(self.problems)} {noun} in the spec")

    def lines(self) -> list[str]:
        lines = []
        for problem in self.problems:
            where = f"{problem.path}: " if problem.path else ""
            lines.append(f"error: {where}{problem.message}")
            if problem.hint:
                lines.append(f"hint: {problem.hint}")
        return lines


class InputError(HpcsftError):
    """A file that the spec names is missing, unreadable, empty or of the wrong shape."""

    exit_code = EXIT_INVALID


class PreflightError(HpcsftError):
    """What the checks before a submission have found against it. All errors are reported together, as `shown`."""

    exit_code = EXIT_INVALID

    def __init__(self, shown: Sequence[str]):
        self.shown = tuple(shown)
        errors = [line.removeprefix("error: ") for line in self.shown if line.startswith("error: ")]
        super().__init__("; ".join(errors))

    def lines(self) -> list[str]:
        return list(self.shown)


class ClusterError(HpcsftError):
    """Slurm does not answer."""

    exit_code = EXIT_NO_SLURM


class UnclearError(ClusterError):
    """Slurm did not say whether it has taken a job: the job may be in the queue."""


class SubmissionError(HpcsftError):
    """Slurm answered, and refused a job."""


class RunNotFoundError(HpcsftError):
    """The path given is no run directory."""

    exit_code = EXIT_NO_RUN


class StageError(HpcsftError):
    """A stage cannot go on, for a reason that running it again would not cure."""


class Stopped(HpcsftError):
    """A stage was told to stop by a signal or its time limit, and has kept all that it made."""

    exit_code = EXIT_STOPPED


class Waiting(HpcsftError):
    """A stage needs what only a person can give (a key, a network, money), and has kept all that it made."""

    exit_code = EXIT_WAITING


class Fenced(HpcsftError):
    """A newer attempt at the same task has taken over: this one must not write any more."""

    exit_code = EXIT_FENCED


def report_errors(main: Callable[[list[str] | None], int], argv: list[str] | None = None) -> int:
    """Run a command's `main`, print foreseen errors as plain lines on stderr, and return the exit code."""
    try:
        code = main(argv)
        if sys.stdout:  # closed with >&-
            sys.stdout.flush()
        return code
    except HpcsftError as error:
        print(scrubbed("\n".join(error.lines())), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; jobs that were submitted go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        _silence_stdout()
        return EXIT_OK
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or error.filename is not None:
            raise
        _silence_stdout()
        print(f"error: cannot write to the standard output: {error.strerror}", file=sys.stderr)
        return EXIT_FAILED


def _silence_stdout() -> None:
    """Or the flush at the exit fails again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
