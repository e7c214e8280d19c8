"""Guards the digests of inputs: right, shared among tasks, computed once, given up at once when the job has to stop."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from hpcsft.digest import BLOCK_BYTES, Interrupted, sha256_of
from hpcsft.errors import Stopped
from hpcsft.provenance import hashing
from hpcsft.provenance.hashing import InputHashing, share
from hpcsft.provenance.inputs import input_paths, read_inputs
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec


def nothing() -> None:
    """Called while digests are waited for."""


@pytest.fixture
def run(spec_values):
    run = RunDir(parse_spec(spec_values).run_path)
    run.create()
    return run


def digest_all(run, spec, tasks: int = 1, between=nothing) -> list[int]:
    """Let every task have its turn; how many bytes each still had to read."""
    read = []
    for index in range(tasks):
        with InputHashing(run, spec, index, tasks) as work:
            read.append(work.missing_bytes)
            work.finish(between)
    return read


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES - 7])
def test_the_digest_of_a_file(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(str(tmp_path / "a")) == hashlib.sha256(content).hexdigest()


def test_a_digest_is_given_up(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 10)
    given_up = threading.Event()
    given_up.set()
    with pytest.raises(Interrupted):
        sha256_of(str(tmp_path / "a"), given_up)


@pytest.mark.parametrize("tasks", [1, 2, 3, 8])
def test_files_are_shared_by_their_bytes(tasks):
    sizes = {"weights-1": 9_000, "weights-2": 9_000, "weights-3": 2_000, "a": 10, "b": 10, "c": 0}
    shares = [share(sizes, index, tasks) for index in range(tasks)]
    assert sorted(path for mine in shares for path in mine) == sorted(sizes)
    if tasks == 2:
        assert sorted(sum(sizes[path] for path in mine) for mine in shares) == [9_020, 11_000]


@pytest.mark.parametrize("tasks", [1, 3])
def test_all_inputs_are_digested_whatever_the_number_of_tasks(run, spec_values, tasks):
    spec = parse_spec(spec_values)
    read = digest_all(run, spec, tasks)
    found = {file.path: file for file in read_inputs(run).files}
    assert run.inputs.exists() and list(found) == list(input_paths(spec))
    assert sum(read) == sum(os.path.getsize(path) for path in found)
    for path, file in found.items():
        assert file.sha256 == sha256_of(path) and file.num_bytes == os.path.getsize(path)


def test_nothing_is_read_again_but_what_has_changed(run, spec_values, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_bytes(Path(spec_values["data"]["train"][0]).read_bytes())
    spec_values["data"]["train"] = [str(data)]
    spec = parse_spec(spec_values)
    digest_all(run, spec)
    before = run.inputs.read_bytes()
    assert digest_all(run, spec) == [0] and run.inputs.read_bytes() == before
    data.write_bytes(data.read_bytes() + b"\n")
    os.utime(data)
    assert digest_all(run, spec) == [data.stat().st_size]
    assert {file.path: file.sha256 for file in read_inputs(run).files}[str(data)] == sha256_of(str(data))


def test_what_the_spec_does_not_stand_for_any_more_is_forgotten(run, spec_values, tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("{}\n")
    spec_values["data"]["train"] = [str(tmp_path / "*.jsonl")]
    spec = parse_spec(spec_values)
    digest_all(run, spec)
    (tmp_path / "b.jsonl").unlink()
    assert digest_all(run, spec) == [0]
    assert [file.path for file in read_inputs(run).files if file.where == "data.train"] == [str(tmp_path / "a.jsonl")]


def test_a_job_that_has_to_stop_keeps_whole_digests_and_stops_at_once(run, spec_values, tmp_path, monkeypatch):
    """A file like a pipe: its end never comes."""
    big = tmp_path / "big.jsonl"
    big.write_bytes(b"{}\n" * BLOCK_BYTES)
    endless = tmp_path / "endless.jsonl"
    endless.write_text("{}\n")
    spec_values["data"]["train"] = [str(big), str(endless)]
    spec = parse_spec(spec_values)
    real = hashing.sha256_of

    def reading(path: str, given_up: threading.Event) -> str:
        while path == str(endless):
            if given_up.wait(0.01):
                raise Interrupted
        return real(path, given_up)

    monkeypatch.setattr(hashing, "sha256_of", reading)
    monkeypatch.setattr(hashing, "POLL_INTERVAL_S", 0.01)

    def stop_when_big_is_kept() -> None:
        if any(file.path == str(big) for file in read_inputs(run).files):
            raise Stopped("stopped by SIGTERM")

    began = time.monotonic()
    with pytest.raises(Stopped):
        digest_all(run, spec, between=stop_when_big_is_kept)
    assert time.monotonic() - began < 30 and not run.inputs.exists()
    monkeypatch.undo()
    [left] = digest_all(run, spec)
    assert left < big.stat().st_size and run.inputs.exists()


def test_a_file_that_cannot_be_read_has_no_digest_and_stops_nothing(run, spec_values, monkeypatch):
    spec = parse_spec(spec_values)
    real = hashing.sha256_of
    prompts = spec.evaluate.prompts

    def reading(path: str, given_up: threading.Event) -> str:
        if path == prompts:
            raise PermissionError(13, "Permission denied")
        return real(path, given_up)

    monkeypatch.setattr(hashing, "sha256_of", reading)
    digest_all(run, spec)
    found = {file.path: file.sha256 for file in read_inputs(run).files}
    assert found.pop(prompts) is None and all(found.values())
