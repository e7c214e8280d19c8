"""What a user sees when something foreseen goes wrong: plain lines on stderr, a true exit code, no traceback.

Scripts around hpcsft branch on the exit codes, and `hpcsft ... | head` must end as quietly as any other command.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from hpcsft import errors
from hpcsft.errors import HpcsftError, InputError, PreflightError, Problem, SpecError, report_errors
from tests.launch.command import ROOT, TIMEOUT_S, environment


def every_class(base: type[HpcsftError]) -> list[type[HpcsftError]]:
    return [base] + [deeper for child in base.__subclasses__() for deeper in every_class(child)]


KINDS = [kind for kind in every_class(HpcsftError) if kind.__module__ == errors.__name__]


def test_the_tree_in_the_docstring_is_the_tree_in_the_code():
    drawn = dict(re.findall(r"(\w+)\s+exit (\d+)", errors.__doc__ or ""))
    assert drawn == {kind.__name__: str(kind.exit_code) for kind in KINDS}


def test_exit_codes_are_those_of_the_contract():
    assert {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")} == {
        "EXIT_OK": 0,
        "EXIT_FAILED": 1,
        "EXIT_INVALID": 2,
        "EXIT_NO_SLURM": 3,
        "EXIT_STOPPED": 75,
        "EXIT_FENCED": 76,
        "EXIT_WAITING": 77,
        "EXIT_STAGE_FAILED": 100,
        "EXIT_UNFINISHED": 101,
        "EXIT_NO_RUN": 102,
        "EXIT_CANCELLED": 103,
        "EXIT_RUN_WAITING": 104,
    }


def test_an_error_is_a_line_and_its_hint_another():
    assert HpcsftError("no sbatch", "go to a login node").lines() == ["error: no sbatch", "hint: go to a login node"]
    assert HpcsftError("no sbatch").lines() == ["error: no sbatch"]


def test_a_spec_error_has_a_line_for_every_problem():
    problems = [Problem("train.epochs", "too few", "give 1"), Problem("", "not JSON")]
    error = SpecError("spec.json", problems)
    assert error.lines() == ["error: train.epochs: too few", "hint: give 1", "error: not JSON"]
    assert str(error) == "spec.json: 2 problems in the spec"
    assert str(SpecError("spec.json", problems[:1])) == "spec.json: 1 problem in the spec"


@pytest.mark.parametrize("kind", KINDS)
def test_report_errors_prints_on_stderr_and_returns_the_code(kind, capsys):
    several = {
        SpecError: lambda: SpecError("s", [Problem("here", "wrong", "right")]),
        PreflightError: lambda: PreflightError(["error: here: wrong", "hint: right"]),
    }
    error = several.get(kind, lambda: kind("here: wrong", "right"))()

    def main(argv):
        raise error

    assert report_errors(main, []) == kind.exit_code
    assert capsys.readouterr() == ("", "error: here: wrong\nhint: right\n")


def test_report_errors_passes_arguments_and_the_exit_code_through():
    assert report_errors(lambda argv: len(argv or []), ["a", "b", "c"]) == 3


def test_what_nobody_foresaw_keeps_its_traceback():
    def main(argv):
        return [][0]

    with pytest.raises(IndexError):
        report_errors(main, [])


def test_an_interrupt_says_that_the_jobs_go_on(capsys):
    def main(argv):
        raise KeyboardInterrupt

    assert report_errors(main, []) == 130
    assert capsys.readouterr() == ("", "interrupted; jobs that were submitted go on\n")


@pytest.mark.parametrize("lines", [1, 100_000], ids=["little output", "much output"])
def test_a_reader_that_has_gone_is_no_error(lines):
    """As in `hpcsft monitor --once RUN | head -1`. Little output reaches the pipe only at the end, with a flush."""
    code = f"""
import sys
from hpcsft.errors import InputError, report_errors
def main(argv):
    print("a line of the table\\n" * {lines})
    return 0
sys.exit(report_errors(main))
"""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            timeout=TIMEOUT_S,
            env=environment(),
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_hint_survives_for_callers():
    """Job bodies put message and hint into the status file, so both are attributes."""
    error = InputError("a file is missing", "look again")
    assert (error.message, error.hint, str(error)) == ("a file is missing", "look again", "a file is missing")
