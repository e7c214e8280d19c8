"""The layout of a run directory is a contract with users and their scripts, and others must not look inside."""

from __future__ import annotations

import os
import pwd
import stat

import pytest

from hpcsft.cluster import intent
from hpcsft.errors import HpcsftError, RunNotFoundError
from hpcsft.records import StageStatus, Submission, write_json
from hpcsft.rundir import RunDir, make_private, runs_dir_warning
from tests.runs import finished_run


def mode(path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def open_umask():
    """The most generous umask: what is private then was made so."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_new_run_is_private_and_its_parents_are_the_users_affair(tmp_path, open_umask):
    run = RunDir(tmp_path / "group" / "runs" / "a-12345678")
    run.create()
    assert mode(run.path) == 0o700
    assert {mode(path) for path in run.path.iterdir()} == {0o700}
    assert mode(tmp_path / "group" / "runs") == 0o777, "a shared runs_dir stays shared"


def test_making_a_run_again_changes_nothing(tmp_path):
    run = RunDir(tmp_path / "a")
    run.create()
    write_json(run.spec, {})
    run.create()
    assert run.spec.is_file()


def test_the_layout_is_the_contracts(tmp_path):
    run = RunDir(tmp_path)
    assert {name: os.path.relpath(path, tmp_path) for name, path in vars(run).items() if name != "path"} == {
        "spec": "spec.json",
        "plan": "plan.json",
        "provenance": "provenance.json",
        "provenance_folder": "provenance",
        "inputs": "provenance/inputs.json",
        "ended_jobs": "provenance/jobs.json",
        "submission": "submission.json",
        "submitted": "submitted.json",
        "fetched": "fetched.json",
        "cancelled": "CANCELLED",
        "attempts": "attempts",
        "heartbeat": "heartbeat",
        "metrics": "metrics.jsonl",
        "validation": "validation.jsonl",
        "tensorboard": "tensorboard",
        "wandb": "wandb",
        "code": "code",
        "status": "status",
        "logs": "logs",
        "submitit": "submitit",
        "data": "data",
        "template": "data/template.jinja",
        "manifest": "data/manifest.json",
        "audit": "data/audit.json",
        "quarantine": "data/quarantine.jsonl",
        "cache": "../.cache",
        "data_index": "../.cache/index",
        "queue_cache": "../.cache/queue",
        "checkpoints": "checkpoints",
        "models": "models",
        "evaluate": "evaluate",
        "checks": "evaluate/checks.json",
        "benchmark": "benchmark",
        "report": "report",
        "notified": "notified",
    }
    assert run.status_file("train", 0, tasks=1) == tmp_path / "status/train.json"
    assert run.status_file("generate", 3, tasks=4) == tmp_path / "status/generate-3.json"
    assert run.attempt_record("train", "12", 1) == tmp_path / "provenance/train/12_1.json"
    assert run.inputs_part(2) == tmp_path / "provenance/inputs-2.json"
    assert run.journal_file("train", 0, tasks=1) == tmp_path / "attempts/train.jsonl"
    assert run.journal_file("generate", 3, tasks=4) == tmp_path / "attempts/generate-3.jsonl"
    assert run.fence_file("train", 0, tasks=1) == tmp_path / "attempts/train.fence.json"
    assert run.fence_file("generate", 3, tasks=4) == tmp_path / "attempts/generate-3.fence.json"
    assert run.log_folder("train", "17_2", restart=1) == tmp_path / "logs/train/17_2_1"
    assert run.hang_file("train", "17_2", restart=1, rank=5) == tmp_path / "logs/train/17_2_1/5.hang.json"
    assert run.notification_file("done", 5, number=1) == tmp_path / "notified/done-5.json"
    assert run.notification_file("done", 5, number=2) == tmp_path / "notified/done-5-2.json"
    assert run.step_folder(200) == tmp_path / "checkpoints/step-000200"
    assert run.data_cache("0a1b") == tmp_path.parent / ".cache/data/0a1b"
    assert run.epoch_model(1) == tmp_path / "models/epoch-1"


def test_a_relative_path_is_fixed_when_it_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = RunDir("runs/a")
    monkeypatch.chdir("/")
    assert run.path == tmp_path / "runs" / "a"


def test_open_finds_a_run(spec_values):
    run = finished_run(spec_values)
    assert RunDir.open(run.path).path == run.path


def test_open_refuses_what_is_no_run(tmp_path):
    with pytest.raises(RunNotFoundError, match="no run here") as caught:
        RunDir.open(tmp_path / "none")
    assert "RUNS_DIR/NAME-HASH" in (caught.value.hint or "")
    with pytest.raises(RunNotFoundError, match="no run here"):
        RunDir.open(tmp_path)


def test_a_folder_with_a_spec_of_the_users_own_is_no_run(tmp_path):
    """People keep experiments/llama/spec.json; naming that folder is an easy mistake."""
    (tmp_path / "spec.json").write_text("{}")
    with pytest.raises(RunNotFoundError, match="no run here"):
        RunDir.open(tmp_path)


def test_before_the_first_job_there_is_nothing_to_read(tmp_path):
    run = RunDir(tmp_path / "a")
    run.create()
    assert run.read_submission() is None
    assert run.read_status("train", 0, tasks=1) is None
    assert list(run.read_statuses()) == []


def test_submission_and_status_are_read_as_they_were_written(tmp_path):
    run = RunDir(tmp_path / "a")
    run.create()
    run.write_submission(Submission(cluster="slurm", host="login"))
    assert run.read_submission() == Submission(cluster="slurm", host="login")
    statuses = [
        StageStatus(stage="generate", index=index, state="running", attempt=2, job_id=f"5_{index}") for index in (0, 1)
    ]
    for status in statuses:
        write_json(run.status_file("generate", status.index, tasks=2), status)
    assert run.read_status("generate", 1, tasks=2) == statuses[1]
    assert list(run.read_statuses()) == statuses


def test_what_a_killed_writer_left_is_not_read(tmp_path):
    run = RunDir(tmp_path / "a")
    run.create()
    (run.status / ".train.json.17.1.tmp").write_text('{"stage":')
    (run.status / ".train.json").write_text('{"stage":')
    assert list(run.read_statuses()) == []


@pytest.fixture
def own(tmp_path, open_umask) -> RunDir:
    run = RunDir(tmp_path / "a")
    run.create()
    os.umask(0)
    return run


def test_whoever_writes_into_a_run_makes_private_files(own):
    assert own.for_writing() is own
    (own.path / "made by a library").write_text("")
    assert mode(own.path / "made by a library") == 0o600


def test_a_run_of_somebody_else_is_left_alone(own):
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(own.path, 12345, -1)
    with pytest.raises(HpcsftError, match=r"belongs to another user \(uid 12345\): nothing is written there, nor run"):
        own.for_writing()
    with pytest.raises(HpcsftError, match="belongs to"):
        own.create()
    os.chown(own.path, pwd.getpwnam("daemon").pw_uid, -1)
    with pytest.raises(HpcsftError, match="belongs to daemon: ") as caught:
        own.for_writing()
    assert f"submit {own.spec} with --set runs_dir=" in caught.value.hint


def test_a_link_to_a_run_is_refused_and_the_way_to_it_may_have_links(own, tmp_path):
    (tmp_path / "link").symlink_to(own.path)
    with pytest.raises(HpcsftError, match="is a symbolic link: nothing is written through it") as caught:
        RunDir(tmp_path / "link").for_writing()
    assert str(own.path) in caught.value.hint
    with pytest.raises(HpcsftError, match="is a symbolic link"):
        RunDir(tmp_path / "link").create()
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    RunDir(tmp_path / "elsewhere" / "a").for_writing()


@pytest.mark.parametrize("bits", [0o770, 0o702, 0o777])
def test_a_run_that_others_can_write_into_is_refused(own, bits):
    own.path.chmod(bits)
    with pytest.raises(HpcsftError, match=f"has mode {bits:04o}: others can write into it") as caught:
        own.for_writing()
    assert f"chmod -R go-w {own.path}" in caught.value.hint


def test_a_run_that_others_may_look_into_keeps_them_from_what_is_run(own):
    own.code.mkdir()
    own.code.chmod(0o775)
    own.for_writing()
    own.path.chmod(0o755)
    with pytest.raises(HpcsftError, match=r"code has mode 0775: others can write into it"):
        own.for_writing()


def test_copied_code_is_made_private_and_links_are_not_followed(tmp_path):
    (tmp_path / "code" / "a").mkdir(parents=True)
    for path, bits in ((tmp_path / "code" / "a" / "b.py", 0o755), (tmp_path / "outside", 0o644)):
        path.touch()
        path.chmod(bits)
    (tmp_path / "code" / "link").symlink_to(tmp_path / "outside")
    make_private(tmp_path / "code")
    assert mode(tmp_path / "code" / "a" / "b.py") == 0o700 and mode(tmp_path / "outside") == 0o644
    assert mode(tmp_path / "code" / "a") == mode(tmp_path / "code") == 0o700


@pytest.mark.parametrize(("bits", "warned"), [(0o777, True), (0o1777, False), (0o775, False), (0o700, False)])
def test_a_runs_dir_in_which_everybody_can_replace_runs_is_warned_of(tmp_path, bits, warned):
    tmp_path.chmod(bits)
    warning = runs_dir_warning(str(tmp_path))
    assert bool(warning) == warned and (not warning or f"mode {bits:04o}): chmod +t {tmp_path}" in warning)
    assert runs_dir_warning(str(tmp_path / "none")) is None


def test_a_job_asks_for_the_mark_of_a_cancelled_run_and_not_for_what_a_node_remembers(own, monkeypatch):
    """NFS may tell for a minute that a file is still there that a resume has removed on the login node."""
    assert not own.is_cancelled()
    write_json(own.cancelled, {})
    assert own.is_cancelled()
    remembered = os.stat(own.cancelled)
    own.cancelled.unlink()
    monkeypatch.setattr(os, "stat", lambda *_, **__: remembered)
    assert own.cancelled.exists() and not own.is_cancelled()


def test_who_only_looks_settles_nothing_in_another_users_run(spec_values, monkeypatch):
    run = finished_run(spec_values)
    asked = []
    monkeypatch.setattr(intent, "settle_run", lambda run, patience_s=None: asked.append(run))
    intent.settle_if_possible(run)
    assert asked == [run]
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    intent.settle_if_possible(run)
    assert asked == [run]
