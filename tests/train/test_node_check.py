"""Guards that a bad node is named before training begins, that all ranks learn it at once, and that good nodes are not
blamed for what is no fault of theirs.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from hpcsft.attempt.causes import cause_of
from hpcsft.attempt.identity import TaskIdentity
from hpcsft.attempt.outcome import nodes_of
from hpcsft.errors import StageError
from hpcsft.rundir import RunDir
from hpcsft.stage import StageContext
from hpcsft.train import node_check, node_report
from hpcsft.train.exchange import Exchange
from hpcsft.train.node_check import Findings, check_all_reduce, check_nodes, judge_all_reduce, judge_reports
from hpcsft.train.node_report import NodeReport, device_problem, look_at_node, temporary_problem, write_and_read
from tests.attempt.made import empty_run, events, journal
from tests.prepared import context_of, new_run

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return empty_run(tmp_path)


def context(run: RunDir, rank: int = 0, local_rank: int = 0, world_size: int = 2) -> StageContext:
    return context_of(run, "train", task=TaskIdentity("44", 0, rank, local_rank, world_size))


def test_a_good_node_has_nothing_to_report(run, monkeypatch):
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    report = look_at_node(context(run), CPU)
    assert (report.node, report.problems, report.disk_full) == ("n7", [], None)
    assert abs(report.server_ahead_s) < 1
    assert list(run.heartbeat.iterdir()) == [], "what was written is removed"
    monkeypatch.delenv("SLURMD_NODENAME")
    assert look_at_node(context(run, rank=3, local_rank=1), CPU) == NodeReport(rank=3, node=socket.gethostname())


def test_a_gpu_that_is_not_there_is_told():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert device_problem(torch.device("cuda", 5)).startswith("cuda:5 does not compute: ")


def test_a_device_that_computes_wrong_numbers_is_told(monkeypatch):
    monkeypatch.setattr(torch, "equal", lambda left, right: False)
    assert device_problem(CPU) == "cpu computes wrong numbers"


@pytest.mark.parametrize(
    ("folder", "told"),
    [("/sys", "/sys takes no temporary files: "), ("/of/another/machine", None), (None, None)],
    ids=["not writable", "of the login node", "not set"],
)
def test_the_folder_for_temporary_files(monkeypatch, folder, told):
    monkeypatch.delenv("TMPDIR", raising=False)
    if folder:
        monkeypatch.setenv("TMPDIR", folder)
    problem = temporary_problem()
    assert problem is None if told is None else problem.startswith(told)


def test_a_folder_that_is_not_shared_or_cannot_be_written_is_told(run):
    run.heartbeat.rmdir()
    (problem,) = look_at_node(context(run), CPU).problems
    assert problem == f"{run.path} cannot be used: No such file or directory"


def test_a_full_shared_filesystem_is_not_the_nodes_fault(run, monkeypatch):
    def full(path: Path) -> float:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(node_report, "write_and_read", full)
    report = look_at_node(context(run), CPU)
    assert (report.problems, report.disk_full) == ([], f"{run.path} cannot be used: Disk quota exceeded")
    assert judge_reports({0: "n1"}, [report], {}) == Findings(disk_full=report.disk_full)


def test_what_the_users_own_environment_lacks_is_no_nodes_fault(run, monkeypatch):
    """Else one good node after the other would be excluded."""
    told = "cuda:0 does not compute: CUDA error: no kernel image is available for execution on the device"
    monkeypatch.setattr(node_report, "device_problem", lambda device: told)
    report = look_at_node(context(run), CPU)
    assert (report.problems, report.environment) == ([], told)
    assert judge_reports({0: "n1"}, [report], {}) == Findings(environment=told)
    monkeypatch.setattr(node_report, "device_problem", lambda device: "cuda:0 does not compute: ECC error")
    assert look_at_node(context(run), CPU).environment is None


def test_a_folder_for_temporary_files_that_the_spec_names_is_no_nodes_fault(tmp_path, spec_values, monkeypatch):
    spec_values["cluster"]["env"] = {"TMPDIR": "/sys"}
    monkeypatch.setenv("TMPDIR", "/sys")
    report = look_at_node(context(new_run(spec_values)), CPU)
    assert report.problems == [] and report.environment.startswith("/sys takes no temporary files")


def test_all_ranks_end_for_what_the_environment_lacks(run):
    exchange = Exchange(dist.HashStore(), 0, 1)
    with pytest.raises(StageError, match="no kernel image") as caught:
        node_check._settle("findings", Findings(environment="no kernel image"), exchange, context(run), 1.0)
    assert "cluster.env.TMPDIR" in caught.value.hint and cause_of(caught.value) == "code"


def test_the_clock_of_the_file_server_is_read_from_a_file(tmp_path, monkeypatch):
    assert write_and_read(tmp_path / "file") == 0
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() - 90)
    assert 88 < write_and_read(tmp_path / "file") < 92


def reports(**problems: list[str]) -> list[NodeReport]:
    """Of two ranks on each node, the first of which has `problems`."""
    return [
        NodeReport(rank=2 * number + local, node=node, problems=told if local == 0 else [], server_ahead_s=0.0)
        for number, (node, told) in enumerate(problems.items())
        for local in (0, 1)
    ]


def nodes(told: list[NodeReport]) -> dict[int, str]:
    return {report.rank: report.node for report in told}


def test_the_nodes_with_a_problem_are_named():
    told = reports(n1=[], n2=["no GPU", "no room"], n3=["no room"], n4=[])
    assert judge_reports(nodes(told), told, {}).unfit == {"n2": "no GPU", "n3": "no room"}
    assert judge_reports({0: "n1"}, reports(n1=["no GPU"])[:1], {}).unfit == {"n1": "no GPU"}


def test_what_is_wrong_on_every_node_is_nobodys_fault():
    told = reports(n1=["no GPU"], n2=["no GPU"])
    assert judge_reports(nodes(told), told, {}) == Findings(shared="every node of the job: n1: no GPU; n2: no GPU")


def test_a_rank_that_has_nothing_to_report_is_not_waited_for():
    told = reports(n1=[], n2=[], n3=[])
    silent = judge_reports(nodes(told), told[:-1], {})
    assert silent.unfit == {"n3": "rank 5 had nothing to report after 180 s"}
    mute = judge_reports({**nodes(told), 5: None}, told[:-1], {})
    assert mute.shared == "rank 5 came to the rendezvous and then said nothing more"


CLOCKS = {
    "alike": ({"n1": 0, "n2": 0.2}, 0, {}, []),
    "one ahead": ({"n1": 0, "n2": 0, "n3": 400}, 0, {"n3": "its clock is 400 s ahead of the others'"}, []),
    "one a little behind": ({"n1": 0, "n2": 0, "n3": -10}, 0, {}, ["n3: its clock is 10 s behind the others'"]),
    "that of rank 0 wrong": (
        {"n1": 0, "n2": -400, "n3": -400},
        -400,
        {"n1": "its clock is 400 s ahead of the others'"},
        [],
    ),
    "two, and the server knows which": ({"n1": 0, "n2": 400}, 400, {"n1": "its clock is 400 s behind the others'"}, []),
    "only the server's wrong": (
        {"n1": 0, "n2": 0},
        300,
        {},
        ["the file server: its clock is 300 s ahead of the others'"],
    ),
    "only the server's, one node": ({"n1": 0}, -300, {}, ["the file server: its clock is 300 s behind the others'"]),
    "no server": ({"n1": 0, "n2": 0}, None, {}, []),
}


@pytest.mark.parametrize(("ahead_s", "server_s", "unfit", "warnings"), CLOCKS.values(), ids=CLOCKS)
def test_a_clock_that_is_far_from_the_others(ahead_s, server_s, unfit, warnings):
    told = [NodeReport(rank=rank, node=node, server_ahead_s=server_s) for rank, node in enumerate(ahead_s)]
    found = judge_reports(nodes(told), told, ahead_s)
    assert (found.unfit, list(found.warnings), found.shared) == (unfit, warnings, None)


def test_an_all_reduce_that_fails_blames_only_those_that_are_silent_and_few():
    ranks = dict(enumerate(["n1", "n2", "n3"]))
    assert judge_all_reduce(ranks, {0: None, 1: None, 2: None}) == Findings()
    late = "no answer within 300 s"
    assert judge_all_reduce(ranks, {0: late, 1: late}).unfit == {
        "n3": "rank 2 never came back from the first all-reduce"
    }
    assert judge_all_reduce(ranks, {0: None, 1: None}).unfit.keys() == {"n3"}
    assert judge_all_reduce(ranks, {0: late, 1: "NCCL error", 2: late}) == Findings(
        apart=f"the first all-reduce failed: rank 0: {late}"
    )
    assert "rank 1 never came back" in judge_all_reduce({0: "n1", 1: "n2"}, {0: None}).apart


def together(body: Callable[[int, Exchange], Any], ranks: int = 3) -> list[Any]:
    """What `body` returns or raises on each of some ranks, which are threads here and meet at a real store."""
    results: list[Any] = [None] * ranks
    patience = timedelta(seconds=20)
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=patience, wait_for_workers=False)

    def one(rank: int) -> None:
        store = dist.TCPStore("127.0.0.1", server.port, is_master=False, timeout=patience)
        try:
            results[rank] = body(rank, Exchange(dist.PrefixStore("test", store), rank, ranks))
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=one, args=(rank,), name=f"n{rank}") for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def pretend(monkeypatch: pytest.MonkeyPatch, **problems: str) -> None:
    """Every thread is a node of its own, n0, n1, ...; some have a problem."""

    def look(own: StageContext, device: torch.device) -> NodeReport:
        node = node_check.node_name()
        return NodeReport(rank=own.task.rank, node=node, problems=[problems[node]] if node in problems else [])

    monkeypatch.setattr(node_check, "node_name", lambda: threading.current_thread().name)
    monkeypatch.setattr(node_check, "look_at_node", look)


def test_all_ranks_learn_at_once_which_node_is_bad(run, monkeypatch, capsys):
    pretend(monkeypatch, n2="no GPU")

    def body(rank: int, exchange: Exchange) -> Any:
        return check_nodes(context(run, rank, world_size=3), exchange, CPU)

    began_s = time.monotonic()
    found = together(body)
    assert time.monotonic() - began_s < 5
    assert [(str(error), error.nodes, cause_of(error)) for error in found] == [("n2: no GPU", ("n2",), "bad_node")] * 3
    assert events(run) == ["unfit"] and nodes_of(journal(run).rows()) == ["n2"]


def test_good_nodes_go_on(run, monkeypatch):
    pretend(monkeypatch)

    def body(rank: int, exchange: Exchange) -> Any:
        return check_nodes(context(run, rank, world_size=3), exchange, CPU)

    assert together(body) == [{0: "n0", 1: "n1", 2: "n2"}, {}, {}]
    assert events(run) == []


def test_a_rank_that_never_reports_is_named_within_the_limit(run, monkeypatch):
    monkeypatch.setattr(node_check, "REPORT_LIMIT_S", 1.0)
    monkeypatch.setattr(node_check, "CLOCK_LIMIT_S", 1.0)
    monkeypatch.setattr(node_check, "LINGER_S", 0.1)
    pretend(monkeypatch)

    def body(rank: int, exchange: Exchange) -> Any:
        if rank == 2:
            return exchange.tell("node", "n2")
        return check_nodes(context(run, rank, world_size=3), exchange, CPU)

    found = together(body)
    assert [error.nodes for error in found[:2]] == [("n2",)] * 2
    assert str(found[0]) == "n2: rank 2 had nothing to report after 1 s"


def test_a_connection_that_never_comes_is_left_behind(run, monkeypatch):
    """Neither gloo nor NCCL would come back from it for half an hour."""
    monkeypatch.setattr(node_check, "ALL_REDUCE_LIMIT_S", 0.5)
    never = threading.Event()

    def body(rank: int, exchange: Exchange) -> Any:
        own = context(run, rank, world_size=3)
        check_all_reduce(own, exchange, {0: "n0", 1: "n1", 2: "n2"}, lambda: never.wait(60), CPU)

    began_s = time.monotonic()
    found = together(body)
    never.set()
    assert time.monotonic() - began_s < 10
    assert [cause_of(error) for error in found] == ["rank_failure"] * 3
    assert str(found[0]) == "the first all-reduce failed: rank 0: no answer within 0 s"
    assert events(run) == []
