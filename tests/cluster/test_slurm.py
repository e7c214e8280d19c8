"""The whole way on a real Slurm: submission, scripts, the states that the monitor tells, failures and cancels."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcsft.attempt.watchdog import PHASE_RECORD_EVERY_S, STEADY_PHASES
from hpcsft.cluster.submit import submit_experiment
from hpcsft.errors import ClusterError, SubmissionError
from hpcsft.plan import make_plan
from hpcsft.records import read_json, read_jsonl
from hpcsft.rundir import RunDir
from hpcsft.slurm_queue import parse_queue, query_queue
from hpcsft.spec import parse_spec
from tests import waiting
from tests.cluster.minislurm import MiniSlurm
from tests.evaluate.conftest import Endpoint
from tests.launch.command import ROOT, environment, launch

pytestmark = pytest.mark.slurm

STAGES = ["preprocess", "train", "generate", "judge", "report"]
TIMEOUT_S = 240


@pytest.fixture
def submit(slurm: MiniSlurm, spec_values: dict[str, Any], tmp_path: Path) -> Callable[..., Any]:
    """Submit the tiny spec over 2 nodes x 1 task to the low partition, with further `--set` overrides."""
    spec_values["cluster"] = {
        "kind": "slurm",
        "partition": "low",
        "time": "00:10:00",
        "cpus_per_task": 1,
        "preprocess": {"tasks": 2},
        "train": {"nodes": 2, "tasks_per_node": 1},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec_values))

    def run(*overrides: str, options: tuple[str, ...] = (), **further: Any) -> subprocess.CompletedProcess[str]:
        sets = [word for override in overrides for word in ("--set", override)]
        return launch("submit.py", "spec.json", *sets, *options, cwd=tmp_path, **further)

    return run


def submitted(done: subprocess.CompletedProcess[str]) -> RunDir:
    assert done.returncode == 0, done.stderr
    return RunDir(json.loads(done.stdout)["run_dir"])


def monitor(run: RunDir) -> tuple[int, dict[str, Any]]:
    done = launch("monitor.py", run.path, "--once", "--json", cwd=run.path)
    return done.returncode, json.loads(done.stdout)


def wait_for(run: RunDir, condition: Callable[[int, dict[str, Any]], bool]) -> dict[str, Any]:
    """Look with the monitor until `condition` holds for its exit code and document."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        code, state = monitor(run)
        if condition(code, state):
            return state
        assert time.monotonic() < deadline_s, state
        time.sleep(0.2)


def states(document: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["state"] for stage in document["stages"]}


def test_one_spec_becomes_a_table_on_two_nodes(submit: Callable[..., Any], slurm: MiniSlurm) -> None:
    done = submit(options=("--json",))
    run = submitted(done)
    jobs = json.loads(done.stdout)["jobs"]
    assert [job["stage"] for job in jobs] == STAGES
    assert [job["tasks"] for job in jobs] == [2, 1, 2, 1, 1]
    assert [job["depends_on"] for job in jobs] == [[], *([job["job_id"]] for job in jobs[:-1])]

    scripts = {job["stage"]: next((run.submitit / job["stage"]).glob("*_submission.sh")).read_text() for job in jobs}
    for job in jobs:
        script = scripts[job["stage"]]
        assert "#SBATCH --partition=low" in script and "#SBATCH --time=10" in script
        assert f"#SBATCH --chdir={run.code}" in script and "--wckey" not in script
        assert "#SBATCH --requeue" in script and script.endswith("exit $?")
        assert re.search(r"^srun .*--kill-on-bad-exit=1 --cpus-per-task=1 ", script, re.MULTILINE)
        if job["depends_on"]:
            assert f"#SBATCH --dependency=afterok:{job['depends_on'][0]}" in script
            assert "#SBATCH --kill-on-invalid-dep=yes" in script
    assert "#SBATCH --array=0-1%2" in scripts["generate"]
    assert "#SBATCH --nodes=2" in scripts["train"] and "#SBATCH --ntasks-per-node=1" in scripts["train"]
    assert re.fullmatch(rf"hpcsft:{run.path.name}:train:[0-9a-f]{{8}}", slurm.job(jobs[1]["job_id"])["Comment"])

    code, document = monitor(run)
    assert (code, document["state"] in ("pending", "running")) == (101, True)
    document = wait_for(run, lambda code, _: code != 101)
    assert document["state"] == "done" and set(states(document).values()) == {"done"}
    assert monitor(run)[0] == 0

    started = [row for row in read_jsonl(run.attempts / "train.jsonl") if row["event"] == "start"]
    assert [row["world_size"] for row in started] == [2]
    rows = (run.report / "leaderboard.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["tiny/base", "tiny/epoch-1", "tiny/epoch-2"]
    assert sorted(path.name for path in (run.logs / "train").rglob("*")) == sorted(
        [f"{jobs[1]['job_id']}_0", "0.err", "0.out", "1.err", "1.out"]
    )

    again = submit(options=("--json",))
    assert {**json.loads(again.stdout), "warnings": []} == {**json.loads(done.stdout), "warnings": []}
    assert "has been submitted before" in submit().stdout


def test_a_failing_stage_is_told_and_its_dependants_are_cancelled(submit: Callable[..., Any]) -> None:
    run = submitted(submit("data.max_length=16", "data.overlong=drop", options=("--json",)))
    done = launch("submit.py", "spec.json", "--set", "data.max_length=16", "--set", "data.overlong=drop", "--watch",
                  cwd=run.path.parents[1])  # fmt: skip
    assert done.returncode == 100
    assert "no training row is left after preprocessing" in done.stdout
    code, document = monitor(run)
    assert code == 100
    assert states(document) == {"preprocess": "failed"} | dict.fromkeys(STAGES[1:], "cancelled")
    failed = document["stages"][0]
    assert failed["message"].startswith("no training row is left")
    assert "error: no training row is left" in (run.path / failed["log"]).read_text()
    shown = launch("monitor.py", run.path, "--once", cwd=run.path).stdout
    assert "preprocess failed: bad data: no training row is left" in shown and "hint: " in shown
    logs = launch("logs.py", run.path, "preprocess", cwd=run.path).stdout
    assert "error: no training row is left" in logs


def test_a_refused_stage_takes_the_earlier_ones_back_and_leaves_nothing(
    spec_values: dict[str, Any], slurm: MiniSlurm, tmp_path: Path
) -> None:
    """The preflight would have refused it; what it cannot know is refused here."""
    spec_values["cluster"] = {"kind": "slurm", "partition": "low", "time": 10, "train": {"tasks_per_node": 2}}
    spec_values["cluster"]["judge"] = {"partition": "nowhere"}
    spec = parse_spec(spec_values)
    with pytest.raises(SubmissionError, match=r"Slurm refused the stage judge: .*invalid partition") as caught:
        submit_experiment(spec, make_plan(spec), None, ["pytest"])
    assert "preprocess, train, generate had been submitted, and are cancelled again" in caught.value.message
    assert not list((tmp_path / "runs").glob("*"))

    def alive() -> list[str]:
        ours = slurm.run("squeue", "-h", "-o", "%k %T", "-t", "all").stdout.splitlines()
        mine = [line for line in ours if "tiny-" in line and line.split(":")[1] not in _known_runs(tmp_path)]
        return [line for line in mine if not line.endswith(("CANCELLED", "COMPLETED", "FAILED"))]

    waiting.wait_for("the end of what had been submitted", lambda: not alive())


def _known_runs(tmp_path: Path) -> set[str]:
    return {path.parent.name for path in tmp_path.parent.glob("*/runs/*/spec.json")}


def test_a_cancelled_run_stays_cancelled_until_it_is_resumed(submit: Callable[..., Any], slurm: MiniSlurm) -> None:
    run = submitted(submit("train.epochs=1", options=("--json",)))
    wait_for(run, lambda _, state: states(state)["preprocess"] in ("running", "done"))
    cancelled = launch("cancel.py", run.path, "--yes", cwd=run.path)
    assert cancelled.returncode == 0 and "resume.py" in cancelled.stdout
    document = wait_for(run, lambda code, _: code == 103)
    assert document["state"] == "cancelled"
    assert launch("cancel.py", run.path, "--yes", cwd=run.path).stdout.endswith("nothing to cancel\n")

    refused = launch("resume.py", run.path, "--set", "seed=8", cwd=run.path)
    assert refused.returncode == 2 and "resume changes cluster.*, evaluate.checks.* and" in refused.stderr
    resumed = launch("resume.py", run.path, "--set", "cluster.train.nodes=1", cwd=run.path)
    assert resumed.returncode == 0, resumed.stderr
    document = wait_for(run, lambda code, _: code != 101)
    assert document["state"] == "done", document
    started = [row for row in read_jsonl(run.attempts / "train.jsonl") if row["event"] == "start"]
    assert started[-1]["world_size"] == 1
    assert (run.report / "report.md").exists()
    assert "nothing to resume" in launch("resume.py", run.path, cwd=run.path).stdout


def test_stages_can_be_submitted_one_after_the_other(submit: Callable[..., Any]) -> None:
    refused = submit(options=("--stages", "train"))
    assert refused.returncode == 1 and "needs preprocess" in refused.stderr
    run = submitted(submit(options=("--stages", "preprocess", "--json")))
    assert [job.stage for job in run.read_submission().jobs] == ["preprocess"]
    assert wait_for(run, lambda code, _: code != 101)["state"] == "done"
    submitted(submit(options=("--stages", "preprocess,train", "--json")))
    assert [job.stage for job in run.read_submission().jobs] == ["preprocess", "train"]
    assert wait_for(run, lambda code, _: code != 101)["state"] == "done"


def test_a_rank_that_is_killed_beyond_the_limit_ends_the_run_and_the_limit_is_named(submit: Callable[..., Any]) -> None:
    run = submitted(submit("evaluate=null", "train.epochs=200", "cluster.retries.rank_failure=0", options=("--json",)))
    wait_for(run, lambda _, state: state["train"].get("step", 0) >= 5)
    leader, other = rank_process(run, 0), rank_process(run, 1)
    for process, number in [(leader, signal.SIGSTOP), (other, signal.SIGKILL)]:
        os.kill(process, number)
    for number in (signal.SIGTERM, signal.SIGCONT):  # srun's, which may come before the collective fails
        os.kill(leader, number)
    document = wait_for(run, lambda code, _: code != 101)
    assert (document["state"], states(document)["report"]) == ("failed", "cancelled")
    message = document["stages"][1]["message"]
    assert message.startswith("a rank died") and "(1 time; cluster.retries.rank_failure is 0)" in message


def test_a_hang_is_ended_with_the_stacks_of_all_ranks_and_the_run_goes_on(submit: Callable[..., Any]) -> None:
    run = submitted(submit("evaluate=null", "train.epochs=20", "train.hang_after_s=15", options=("--json",)))
    wait_for(run, lambda _, state: state["train"].get("step", 0) >= 5)
    stop_in_a_step(run, 1)  # rank 0 now waits for it in a collective
    document = wait_for(run, lambda code, _: code != 101)
    assert document["state"] == "done" and document["stages"][1]["restarts"] == 1
    ends = [row["cause"] for row in read_jsonl(run.attempts / "train.jsonl") if row["event"] == "end"]
    assert ends == ["hang"]
    job_id = run.read_submission().latest()["train"].job_id
    stacks = (run.log_folder("train", job_id, 0) / "0.err").read_text()
    assert "watchdog: rank 0" in stacks and "Current thread" in stacks and "hpcsft/train/loop.py" in stacks


def test_a_rehearsal_preempts_a_run_and_tells_what_it_took(submit: Callable[..., Any], tmp_path: Path) -> None:
    """Both notices: SIGUSR2, after which hpcsft requeues, and scontrol requeue, after which Slurm does."""
    done = submit(options=("--rehearse-preemption",), timeout_s=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no step was lost" in done.stdout
    run = RunDir(next((tmp_path / "runs").glob("tiny-rehearsal-*")))
    rows = list(read_jsonl(run.attempts / "train.jsonl"))
    stopped = [row["step"] for row in rows if row["event"] == "stopped"]
    resumed = [(row["step"], row["lost_steps"]) for row in rows if row["event"] == "resumed"]
    assert resumed[:3] == [(0, 0), *((step, 0) for step in stopped[:2])]
    assert run.cancelled.exists() and monitor(run)[0] in (101, 103)


def rank_process(run: RunDir, rank: int) -> int:
    """The process id of a training rank."""
    found = subprocess.run(
        ["pgrep", "-f", f"^[^ ]*python -u -m submitit.core._submit {run.submitit}/train"],
        capture_output=True,
        text=True,
    )
    return next(int(pid) for pid in found.stdout.split() if f"SLURM_PROCID={rank}" in _environment(pid))


def stop_in_a_step(run: RunDir, rank: int) -> None:
    """SIGSTOP a rank while rank 0 is in a step or validates: an export may take long, and would be no hang for long."""
    process, deadline_s = rank_process(run, rank), time.monotonic() + TIMEOUT_S
    while True:
        os.kill(process, signal.SIGSTOP)
        time.sleep(PHASE_RECORD_EVERY_S + 1)  # by then rank 0's watchdog has recorded the phase that it stays in
        if read_json(run.heartbeat / "0.json")["phase"] in STEADY_PHASES:
            return
        assert time.monotonic() < deadline_s
        os.kill(process, signal.SIGCONT)
        time.sleep(0.1)  # some steps on


def _environment(pid: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_text().split("\0")
    except OSError:
        return []


def test_the_code_of_a_waiting_job_is_the_one_that_was_submitted(
    submit: Callable[..., Any], slurm: MiniSlurm, tmp_path: Path
) -> None:
    """A copy of the checkout submits, then is broken: the jobs run from the snapshot and do not notice."""
    checkout = tmp_path / "checkout"
    for folder in ("hpcsft", "jobs", "launch"):
        shutil.copytree(ROOT / folder, checkout / folder)
    command = [sys.executable, str(checkout / "launch/submit.py"), "spec.json", "--json", "--set", "evaluate=null"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    run = submitted(done)
    for file in (checkout / "hpcsft").rglob("*.py"):
        file.write_text("raise SystemExit('the checkout was edited')\n")
    assert wait_for(run, lambda code, _: code != 101)["state"] == "done"


def test_a_job_that_dies_before_it_has_a_log_points_at_the_launchers(submit: Callable[..., Any]) -> None:
    setup = 'cluster.setup=["echo no such module: cuda >&2; exit 3"]'
    run = submitted(submit(setup, "evaluate=null", options=("--json",)))
    document = wait_for(run, lambda code, _: code != 101)
    failed = document["stages"][0]
    assert failed["state"] == "failed" and "before it could say anything" in failed["message"]
    assert "no such module: cuda" in (run.path / failed["log"]).read_text()


@pytest.fixture
def silent_run(submit: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDir]:
    """A run on a Slurm of its own whose controller has died."""
    with MiniSlurm(tmp_path / "slurm") as cluster:
        monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
        run = submitted(submit(options=("--stages", "preprocess", "--json")))
        cluster.kill("slurmctld")
        yield run


def test_without_a_controller_the_commands_say_so(
    silent_run: RunDir, submit: Callable[..., Any], tmp_path: Path
) -> None:
    asked = launch("monitor.py", silent_run.path, "--once", cwd=silent_run.path)
    assert asked.returncode == 3 and "Unable to contact slurm controller" in asked.stderr
    refused = submit("name=other")
    assert refused.returncode == 3 and "Unable to contact slurm controller" in refused.stderr
    assert not list((tmp_path / "runs").glob("other-*"))
    cancelled = launch("cancel.py", silent_run.path, "--yes", cwd=silent_run.path)
    assert cancelled.returncode == 3 and "the run is marked" in cancelled.stderr
    with pytest.raises(ClusterError, match="squeue failed"):
        query_queue()


def test_the_lines_of_squeue_are_understood() -> None:
    lines = (
        "12|N/A|PENDING|0:00|10:00|2026-11-30T10:00:00|NONE||Resources\n"
        "13|4|RUNNING|1:02|UNLIMITED|2026-11-30T09:00:00|N/A|n[1-2]|None\n14|0|PENDING|0:00|1|N/A|NONE||a|b\n"
    )
    first, second, third = parse_queue(lines)
    assert (first.job_id, first.index, first.state, first.reason) == ("12", 0, "PENDING", "Resources")
    assert (second.job_id, second.index, second.elapsed, second.limit) == ("13", 4, "1:02", "UNLIMITED")
    assert (first.start, first.nodes, second.nodes) == ("2026-11-30T10:00:00", "", "n[1-2]")
    assert third.reason == "a|b"


def test_a_run_without_a_key_waits_for_a_judge_and_one_command_finishes_it(submit: Callable[..., Any]) -> None:
    key, secret = "HPCSFT_TEST_KEY", "sk-" + "x7" * 8  # written out nowhere, so not in the code either
    judge = {"kind": "openai", "model": "judge", "api_key_env": key}
    done = submit("train.epochs=1", f"evaluate.judge={json.dumps(judge)}")
    assert f"{key} is not set" in done.stdout + done.stderr
    run = RunDir(done.stdout.split()[2])
    command = [sys.executable, str(ROOT / "jobs" / "judge.py"), str(run.path)]
    early = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=TIMEOUT_S, cwd="/")
    assert early.returncode == 1 and "judge is still in the hands of job" in early.stderr
    document = wait_for(run, lambda code, _: code != 101)
    assert document["state"] == "waiting" and monitor(run)[0] == 104
    assert list(states(document).values()) == ["done", "done", "done", "waiting", "pending"]
    waiting = document["stages"][3]
    assert f"{key} is not set" in waiting["message"] and f"python jobs/judge.py {run.path}" in waiting["hint"]
    answers = {path: path.read_bytes() for path in run.evaluate.glob("*/answers-*.jsonl")}
    assert len(answers) == 4

    with Endpoint() as endpoint:
        env = {**environment(), key: secret, "OPENAI_BASE_URL": endpoint.base_url}
        finished = subprocess.run(command, capture_output=True, text=True, env=env, timeout=TIMEOUT_S, cwd="/")
        assert finished.returncode == 0, finished.stderr
        assert {request["key"] for request in endpoint.requests} == {f"Bearer {secret}"}
    assert monitor(run)[1]["state"] == "done" and (run.report / "leaderboard.csv").exists()
    assert {path: path.read_bytes() for path in answers} == answers
    assert not [path for path in run.path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
