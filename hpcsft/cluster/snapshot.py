"""The code that a run keeps: copied at submission, run from there, and able to submit itself again."""

from __future__ import annotations

import shutil
from pathlib import Path

from hpcsft.errors import HpcsftError
from hpcsft.provenance.code import FOLDERS


def source_root() -> Path:
    """The folder that holds hpcsft/ and jobs/."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "jobs").is_dir():
        hint = "install hpcsft from its checkout: pip install -e ."
        raise HpcsftError(f"no jobs/ beside hpcsft/ in {root}", hint)
    return root


def copy_code(destination: Path) -> None:
    """Copy hpcsft/, jobs/ and launch/: editing the checkout while a job waits in the queue changes nothing."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    for folder in FOLDERS:
        shutil.copytree(source_root() / folder, destination / folder, ignore=ignore, dirs_exist_ok=True)
