"""Guards where the reason of a failure is looked for: the rank that failed first, and what srun printed in this
attempt; with line numbers that an editor would show.
"""

from __future__ import annotations

from typing import Any

import pytest

from hpcsft.monitor.reading.files import Files
from hpcsft.monitor.reading.logs import LOG_BYTES, failure_logs
from hpcsft.monitor.state.facts import Log
from hpcsft.records import StageStatus
from hpcsft.rundir import RunDir


@pytest.fixture
def run(tmp_path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.create()
    return run


def write(run: RunDir, path: str, text: str) -> None:
    file = run.path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def row(event: str, restart: int = 1, **facts: Any) -> dict[str, Any]:
    return {"event": event, "job_id": "7", "restart": restart, **facts}


STATUS = StageStatus(
    stage="train", index=0, state="failed", attempt=2, job_id="7", restart=1, log="logs/train/7_1/0.err"
)


def logs(run: RunDir, *rows: dict[str, Any], status: StageStatus | None = STATUS) -> list[Log]:
    return failure_logs(run, "train", "7", status, rows, Files())


def paths(found: list[Log]) -> list[str]:
    return [log.path for log in found]


def test_the_rank_that_failed_first_comes_first(run):
    for rank in range(4):
        write(run, f"logs/train/7_1/{rank}.err", f"rank {rank}\n")
    echo, cause = row("failed", cause="rank_failure", rank=0), row("failed", cause="code", rank=3)
    earlier = row("failed", restart=0, cause="code", rank=2)
    assert paths(logs(run, earlier, echo, cause)) == ["logs/train/7_1/3.err", "logs/train/7_1/0.err"]
    assert paths(logs(run, earlier)) == ["logs/train/7_1/0.err"]


def test_the_rank_that_srun_names_is_looked_at_and_srun_itself(run):
    write(run, "logs/train/7_1/0.err", "echo\n")
    write(run, "logs/train/7_1/1.err", "the cause\n")
    write(run, "submitit/train/7_0_log.err", "srun: error: n2: task 1: Exited with exit code 1\n")
    assert paths(logs(run))[-1] == "submitit/train/7_0_log.err" and "logs/train/7_1/1.err" in paths(logs(run))


def test_of_what_attempts_share_only_this_ones_part_is_read(run):
    before, after = "srun: error: n1: task 0: Killed\n", "slurmstepd: error: oom_kill event\n"
    write(run, "submitit/train/7_0_log.err", before + after)
    end = row("end", restart=0, cause="rank_failure", log_bytes={"7_0_log.err": len(before)})
    found = logs(run, end)[-1]
    assert (found.lines, found.lines_before) == ([after.strip()], 1)
    whole = row("end", restart=0, cause="rank_failure", log_bytes={"7_0_log.err": len(before + after)})
    assert logs(run, whole) == []
    own = row("end", restart=1, cause="out_of_memory", log_bytes={"7_0_log.err": len(before + after)})
    assert logs(run, end, own)[-1].lines == [after.strip()], "its own end does not hide what came before it"


def test_a_job_that_never_said_a_word_has_its_launchers_log(run):
    write(run, "submitit/train/7_0_log.err", "conda: command not found\n")
    assert paths(logs(run, status=None)) == ["submitit/train/7_0_log.err"]


def test_nothing_there_is_nothing(run):
    assert logs(run) == []


@pytest.mark.parametrize("num_lines", [10, 9_000, 30_000])
def test_lines_have_their_numbers_in_the_file_however_long_it_is(run, num_lines):
    write(run, "logs/train/7_1/0.err", "".join(f"this is line {n} of the log\n" for n in range(1, num_lines + 1)))
    found = logs(run)[0]
    assert found.lines[0] == f"this is line {found.lines_before + 1} of the log"
    assert found.lines[-1] == f"this is line {num_lines} of the log"
    assert sum(map(len, found.lines)) <= LOG_BYTES
