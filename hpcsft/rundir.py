"""Every path of a run directory, named once."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from hpcsft.errors import HpcsftError, RunNotFoundError
from hpcsft.records import StageStatus, Submission, read_json, write_json


class RunDir:
    """A run directory: the only thing that the login node and the compute nodes share.

    The layout is part of the contract with users; nothing else in hpcsft joins these paths by hand.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).absolute()
        self.spec = self.path / "spec.json"
        self.plan = self.path / "plan.json"
        self.provenance = self.path / "provenance.json"
        self.provenance_folder = self.path / "provenance"
        self.inputs = self.provenance_folder / "inputs.json"
        self.ended_jobs = self.provenance_folder / "jobs.json"
        self.submission = self.path / "submission.json"
        self.submitted = self.path / "submitted.json"
        self.fetched = self.path / "fetched.json"
        self.cancelled = self.path / "CANCELLED"
        self.attempts = self.path / "attempts"
        self.heartbeat = self.path / "heartbeat"
        self.metrics = self.path / "metrics.jsonl"
        self.validation = self.path / "validation.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.wandb = self.path / "wandb"
        self.code = self.path / "code"
        self.status = self.path / "status"
        self.logs = self.path / "logs"
        self.submitit = self.path / "submitit"
        self.data = self.path / "data"
        self.template = self.data / "template.jinja"
        self.manifest = self.data / "manifest.json"
        self.audit = self.data / "audit.json"
        self.quarantine = self.data / "quarantine.jsonl"
        self.cache = self.path.parent / ".cache"
        self.data_index = self.cache / "index"
        self.queue_cache = self.cache / "queue"
        self.checkpoints = self.path / "checkpoints"
        self.models = self.path / "models"
        self.evaluate = self.path / "evaluate"
        self.checks = self.evaluate / "checks.json"
        self.benchmark = self.path / "benchmark"
        self.report = self.path / "report"
        self.notified = self.path / "notified"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDir:
        """An existing run directory; raises RunNotFoundError otherwise."""
        run = cls(path)
        if not (run.spec.is_file() and run.plan.is_file()):
            hint = "a run directory is what submit printed: RUNS_DIR/NAME-HASH, with a spec.json inside"
            raise RunNotFoundError(f"{path}: no run here", hint)
        return run

    def refuse_if_gone(self) -> None:
        """RunNotFoundError if the run, which was here, is here no more: nothing may be made anew in its place."""
        try:
            os.lstat(self.spec)
        except (FileNotFoundError, NotADirectoryError):
            hint = "if it was moved, python launch/resume.py NEW_PLACE goes on there"
            raise RunNotFoundError(f"the run directory {self.path} is gone: moved or deleted", hint) from None

    def create(self) -> None:
        """Make the directory and its folders, private to the user (0700). Parents keep the user's own umask.

        Raises HpcsftError as `for_writing` does: somebody else may have made it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        self.for_writing()
        inside = (self.status, self.attempts, self.heartbeat, self.logs, self.submitit, self.data)
        for folder in (self.provenance_folder, *inside):
            folder.mkdir(mode=0o700, exist_ok=True)

    def for_writing(self) -> RunDir:
        """This run, for whoever writes into it, runs its code or loads its checkpoints: it is the user's alone.

        From here on, all files that this process and its children make have no group or world bits. Raises HpcsftError
        as `refuse_foreign` does.
        """
        self.refuse_foreign()
        os.umask(0o077)
        return self

    def refuse_foreign(self) -> None:
        """HpcsftError if the directory is a symbolic link or another user's, or if others can write into it.

        What such a run says, its spec included, may be shown, but nothing that it asks for may be done.
        """
        facts = os.lstat(self.path)
        if stat.S_ISLNK(facts.st_mode):
            hint = f"name the directory itself: {os.path.realpath(self.path)}"
            raise HpcsftError(f"{self.path} is a symbolic link: nothing is written through it, nor run", hint)
        if facts.st_uid != os.geteuid():
            hint = f"a run of your own: submit {self.spec} with --set runs_dir=..., a folder of yours"
            raise HpcsftError(f"{self.path} belongs to {_user(facts.st_uid)}: nothing is written there, nor run", hint)
        inside = (self.code, self.submitit, self.attempts, self.status, self.checkpoints)
        for folder in (self.path, *(inside if facts.st_mode & 0o011 else ())):
            if folder.exists() and (mode := stat.S_IMODE(folder.stat().st_mode)) & 0o022:
                hint = f"look whether all in it is yours, then: chmod -R go-w {self.path}"
                raise HpcsftError(f"{folder} has mode {mode:04o}: others can write into it", hint)

    def is_cancelled(self) -> bool:
        """Is it marked as cancelled? For jobs: opened and not only looked at.

        NFS asks its server when a file is opened; of one that is only looked at it may tell for a minute what was
        there before a resume.
        """
        try:
            os.close(os.open(self.cancelled, os.O_RDONLY))
        except FileNotFoundError:
            return False
        except OSError:
            return self.cancelled.exists()
        return True

    def status_file(self, stage: str, index: int, tasks: int) -> Path:
        """status/STAGE.json, or status/STAGE-INDEX.json for a stage of several tasks."""
        return self.status / f"{_task(stage, index, tasks)}.json"

    def journal_file(self, stage: str, index: int, tasks: int) -> Path:
        """attempts/STAGE[-INDEX].jsonl: one file per task, because appends of two nodes to one may be lost on NFS."""
        return self.attempts / f"{_task(stage, index, tasks)}.jsonl"

    def fence_file(self, stage: str, index: int, tasks: int) -> Path:
        """attempts/STAGE[-INDEX].fence.json: the newest attempt at a task."""
        return self.attempts / f"{_task(stage, index, tasks)}.fence.json"

    def log_folder(self, stage: str, job_id: str, restart: int) -> Path:
        """logs/STAGE/JOBID_RESTART: one folder per attempt, so that a requeue never overwrites a log."""
        return self.logs / stage / f"{job_id}_{restart}"

    def attempt_record(self, stage: str, job_id: str, restart: int) -> Path:
        """provenance/STAGE/JOBID_RESTART.json: on what an attempt ran."""
        return self.provenance_folder / stage / f"{job_id}_{restart}.json"

    def inputs_part(self, index: int) -> Path:
        """provenance/inputs-INDEX.json: digests of the inputs that task `index` of preprocessing has made so far."""
        return self.provenance_folder / f"inputs-{index}.json"

    def hang_file(self, stage: str, job_id: str, restart: int, rank: int) -> Path:
        """Beside a rank's logs: what the watchdog wrote when it ended that rank."""
        return self.log_folder(stage, job_id, restart) / f"{rank}.hang.json"

    def notification_file(self, event: str, num_jobs: int, number: int) -> Path:
        """notified/EVENT-JOBS[-NUMBER].json: a try to tell of `event`, when so many jobs had been submitted."""
        return self.notified / f"{event}-{num_jobs}{f'-{number}' if number > 1 else ''}.json"

    def data_cache(self, fingerprint: str) -> Path:
        """RUNS_DIR/.cache/data/FINGERPRINT: shards that runs share; it may be removed at any time."""
        return self.cache / "data" / fingerprint

    def step_folder(self, step: int) -> Path:
        """checkpoints/step-000200."""
        return self.checkpoints / f"step-{step:06d}"

    def epoch_model(self, epoch: int) -> Path:
        """models/epoch-1: the export of an epoch (counted from 1)."""
        return self.models / f"epoch-{epoch}"

    def read_submission(self) -> Submission | None:
        """What was submitted for this run, None before the first job."""
        try:
            return Submission.model_validate(read_json(self.submission))
        except FileNotFoundError:
            return None

    def write_submission(self, submission: Submission) -> None:
        """Replace submission.json in one step."""
        write_json(self.submission, submission)

    def read_status(self, stage: str, index: int, tasks: int) -> StageStatus | None:
        """What one task of a stage last said about itself, None before its first start."""
        try:
            return StageStatus.model_validate(read_json(self.status_file(stage, index, tasks)))
        except FileNotFoundError:
            return None

    def read_statuses(self) -> Iterator[StageStatus]:
        """The last word of every task that has started."""
        for file in sorted(self.status.glob("*.json")):
            if not file.name.startswith("."):
                yield StageStatus.model_validate(read_json(file))


def make_private(folder: Path) -> None:
    """Take all group and world bits from `folder` and what is in it. Links are not followed."""
    for place, folders, files in os.walk(folder):
        for path in (Path(place), *(Path(place, name) for name in (*folders, *files))):
            if not path.is_symlink():
                path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)


def runs_dir_warning(runs_dir: str) -> str | None:
    """What is to be said against the folder of runs if everybody can replace what is in it, else None."""
    try:
        mode = stat.S_IMODE(os.stat(runs_dir).st_mode)
    except OSError:
        return None
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return f"runs_dir: everybody can rename or remove runs in {runs_dir} (mode {mode:04o}): chmod +t {runs_dir}"
    return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"another user (uid {uid})"


def _task(stage: str, index: int, tasks: int) -> str:
    return f"{stage}-{index}" if tasks > 1 else stage
