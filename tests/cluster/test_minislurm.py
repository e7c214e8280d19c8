"""MiniSlurm does what other tests take for granted: nodes, preemption, pretend GPUs, a clean end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.minislurm import MiniSlurm, SlurmError
from tests.cluster.processes import belongs, owned
from tests.cluster.settings import PORTS, slurm_conf

pytestmark = pytest.mark.slurm

REPOSITORY = Path(__file__).parents[2]
WHOLE_CLUSTER = ("--nodes=4", "--ntasks-per-node=1", "--cpus-per-task=4")


def sockets(folder: Path) -> list[Path]:
    return [path for path in folder.resolve().rglob("*") if path.is_socket()]


def test_four_nodes_are_idle_under_the_exported_slurm_conf(slurm: MiniSlurm) -> None:
    assert os.environ["SLURM_CONF"] == str(slurm.conf)
    slurm.wait_idle()
    assert slurm.run("sinfo", "-h", "-p", "low", "-o", "%D %t %N").stdout.split() == ["4", "idle", "n[1-4]"]
    assert slurm.is_up()


def test_a_job_runs_one_task_on_each_of_two_nodes(slurm: MiniSlurm) -> None:
    job_id = slurm.submit("srun bash -c 'echo $SLURMD_NODENAME $SLURM_LAUNCH_NODE_IPADDR'", "-N2", "-n2")
    job = slurm.wait_job(job_id, ("COMPLETED", "FAILED"))
    lines = (slurm.jobs / f"{job_id}.out").read_text().splitlines()
    assert (job["JobState"], job["NumNodes"], job["ExitCode"]) == ("COMPLETED", "2", "0:0")
    assert len(set(lines)) == 2
    assert all(line.endswith(" 127.0.0.1") for line in lines)


def test_the_high_partition_preempts_and_the_low_job_runs_again(slurm: MiniSlurm) -> None:
    script = 'echo attempt ${SLURM_RESTART_COUNT:-0}; [ -n "$SLURM_RESTART_COUNT" ] || sleep 300'
    low = slurm.submit(script, *WHOLE_CLUSTER, "--open-mode=append")
    slurm.wait_job(low, "RUNNING")
    high = slurm.submit("true", *WHOLE_CLUSTER, "-p", "high")
    slurm.wait_job(high, "COMPLETED")
    slurm.requeue_now(low)
    job = slurm.wait_job(low, "COMPLETED")
    assert (job["Restarts"], slurm.job(high)["Restarts"]) == ("1", "0")
    assert (slurm.jobs / f"{low}.out").read_text().splitlines()[-1] == "attempt 1"


def test_pretend_gpus_are_given_up_to_what_exists(slurm: MiniSlurm) -> None:
    job_id = slurm.submit("srun printenv CUDA_VISIBLE_DEVICES", "--gres=gpu:4")
    assert slurm.wait_job(job_id, "COMPLETED")["TresPerNode"] == "gres:gpu:4"
    assert (slurm.jobs / f"{job_id}.out").read_text() == "0,1,2,3\n"
    with pytest.raises(SlurmError, match="Requested node configuration is not available"):
        slurm.submit("true", "--gres=gpu:5")


def test_a_second_cluster_stands_beside_and_leaves_nothing(slurm: MiniSlurm, tmp_path: Path) -> None:
    root = tmp_path / ("a-root-too-long-for-a-socket" * 4)
    cluster = MiniSlurm(root, {"SlurmctldParameters": "preempt_send_user_signal"}, grace_s=30)
    cluster.up()
    try:
        run = (root / "minislurm-run").resolve()
        job_id = cluster.submit("trap '' TERM; srun sleep 300 & env -i sleep 300 & wait", "-N2", "-n2")
        cluster.wait_job(job_id, "RUNNING")
        cluster.wait_for("both tasks", lambda: list(owned(cluster.conf).values()).count("sleep") >= 3, 30)
        assert sockets(run)
        assert "preempt_send_user_signal" in cluster.run("scontrol", "show", "config").stdout
        assert "GraceTime=30" in cluster.run("scontrol", "show", "partition", "low").stdout
    finally:
        cluster.down()
    assert owned(cluster.conf) == {}
    assert not run.exists()
    assert sockets(root) == []
    cluster.down()
    assert slurm.is_up()


def test_the_cluster_ends_with_a_process_that_is_killed(slurm: MiniSlurm, tmp_path: Path) -> None:
    code = "import sys; from tests.cluster.minislurm import MiniSlurm; cluster = MiniSlurm(sys.argv[1])"
    argv = [sys.executable, "-c", f"{code}; cluster.up(); print(flush=True); input()", str(tmp_path / "s")]
    cluster, run = MiniSlurm(tmp_path / "s"), tmp_path / "s" / "minislurm-run"
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY) as owner:
        assert owner.stdout and owner.stdout.readline() == b"\n"
        assert cluster.is_up()
        owner.kill()
    cluster.wait_for("the guard's work", lambda: not owned(cluster.conf) and not run.exists(), 20)


def test_a_failed_up_names_the_daemon_that_died_and_leaves_nothing(slurm: MiniSlurm, tmp_path: Path) -> None:
    cluster = MiniSlurm(tmp_path / "s", {"NoSuchKey": "1"})
    with pytest.raises(SlurmError, match=r"(?s)slurmctld died while waiting .*NoSuchKey"):
        cluster.up()
    assert owned(cluster.conf) == {}
    assert sockets(tmp_path) == []


def test_a_killed_daemon_can_be_started_again(slurm: MiniSlurm) -> None:
    slurm.wait_idle()
    for name in ("n4", "slurmctld"):
        slurm.kill(name)
        assert not slurm.is_up()
        slurm.start(name)
        slurm.wait_idle()
        assert slurm.is_up()


def test_a_controller_that_was_stopped_or_frozen_still_knows_its_jobs(slurm: MiniSlurm) -> None:
    job_id = slurm.submit("sleep 300")
    slurm.wait_job(job_id, "RUNNING")
    slurm.stop("slurmctld")
    assert not slurm.is_up()
    slurm.start("slurmctld")
    slurm.wait_for("the controller", lambda: " UP" in slurm.run("scontrol", "ping", check=False).stdout, 30)
    assert slurm.job(job_id)["JobState"] == "RUNNING"
    slurm.freeze("slurmctld")
    with pytest.raises(subprocess.TimeoutExpired):
        slurm.run("scontrol", "show", "job", job_id, timeout_s=2)
    slurm.thaw("slurmctld")
    slurm.run("scancel", job_id)
    slurm.wait_job(job_id, "CANCELLED")


def test_preemption_can_be_changed_while_jobs_run(slurm: MiniSlurm) -> None:
    def preemption() -> tuple[bool, bool]:
        config, partition = (slurm.run("scontrol", "show", *what).stdout for what in (["config"], ["partition", "low"]))
        return "preempt_send_user_signal" in config, "GraceTime=20" in partition

    job_id = slurm.submit("sleep 300")
    slurm.wait_job(job_id, "RUNNING")
    slurm.reconfigure({"SlurmctldParameters": "preempt_send_user_signal"}, grace_s=20)
    assert preemption() == (True, True)
    slurm.reconfigure()
    assert preemption() == (False, False)
    assert slurm.job(job_id)["JobState"] == "RUNNING"
    slurm.run("scancel", job_id)


def test_timeouts_say_what_was_awaited(slurm: MiniSlurm) -> None:
    with pytest.raises(TimeoutError, match=r"(?s)waited 0 s for the moon.*n\[1-4\].*--- slurmctld"):
        slurm.wait_for("the moon", lambda: False, 0)


def test_a_developers_shell_does_not_belong_to_the_cluster() -> None:
    exported = b"HOME=/root\0SLURM_CONF=/c/slurm.conf\0"
    conf = Path("/c/slurm.conf")
    assert not belongs("bash", exported, conf)
    assert belongs("slurmstepd", exported, conf)
    assert belongs("bash", exported + b"SLURMD_NODENAME=n1\0", conf)
    assert not belongs("slurmd", b"SLURM_CONF=/c/slurm.conf.d\0", conf)


def test_a_folder_that_holds_something_else_is_left_alone(slurm: MiniSlurm, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "mine.txt").touch()
    with pytest.raises(SlurmError, match="wants a folder of its own"):
        MiniSlurm(tmp_path).up()
    assert [path.name for path in tmp_path.rglob("*")] == ["logs", "mine.txt"]


def test_paths_that_slurm_conf_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold the path '/a b'"):
        slurm_conf(Path("/a b"), Path("/logs"), PORTS[:5], 0, {})
