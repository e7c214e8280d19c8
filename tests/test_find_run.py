"""Whatever names a run finds it, and what names none or several says which there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsft.errors import ClusterError, RunNotFoundError
from hpcsft.find_run import find, find_run, find_runs, parse_job
from hpcsft.runs_dirs import remember_runs_dir
from tests.places import bare_run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, nothing remembered, and no Slurm."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def test_a_run_by_its_directory_name_or_beginning(home):
    run = bare_run(Path("runs"), "llama-7b-0a1b2c3d")
    bare_run(Path("runs"), "baichuan-11111111")
    words = [str(run.path), f"{run.path}/", "runs/llama-7b-0a1b2c3d", "llama-7b-0a1b2c3d", "llama-7b-0a1b2c3d/"]
    for word in [*words, "llama-7b", "llama-7b-0a", "lla"]:
        assert find_run(word).path == run.path, word


def test_a_run_is_found_from_within(home, monkeypatch):
    run = bare_run(home / "a", "llama-0a1b2c3d")
    monkeypatch.chdir(run.path)
    assert find_run(".").path == run.path


def test_the_whole_name_goes_before_a_beginning(home):
    short, longer = bare_run(Path("runs"), "llama-00000000"), bare_run(Path("runs"), "llama-7b-11111111")
    assert find_run("llama").path == short.path
    assert find_run("llama-7").path == longer.path


@pytest.mark.parametrize("word", ["runsx", "runsx/"])
def test_a_folder_is_never_the_beginning_of_a_name(word, home):
    Path("runsx").mkdir()
    bare_run(home / "other", "runsx-old-0123abcd", {"train": "7"})
    remember_runs_dir(home / "other")
    for finding in (find_run, lambda word: find_runs([word])):
        with pytest.raises(RunNotFoundError, match=r"^no run in runsx/$") as caught:
            finding(word)
    assert caught.value.hint == "hpcsft runs lists those that are known; or name its directory"
    Path("runsx").rmdir()
    if word.endswith("/"):
        with pytest.raises(RunNotFoundError, match=f"^no run {word} in "):
            find_run(word)
    else:
        assert find_run(word).path == home / "other" / "runsx-old-0123abcd"


def test_a_slash_at_the_end_is_that_of_a_directory(home):
    run = bare_run(home / "other", "123-0123abcd", {"train": "7"})
    remember_runs_dir(home / "other")
    assert find_run("123-0123abcd/").path == run.path
    assert find_run("123").path == find_run("7").path == run.path
    for word in ("123/", "7/"):
        with pytest.raises(RunNotFoundError, match=f"^no run {word} in "):
            find_run(word)
    Path("123").mkdir()
    assert find_run("123").path == run.path, "a whole name goes before a folder that is no run"


def test_an_empty_name_is_no_beginning(home):
    bare_run(Path("runs"), "llama-00000000")
    with pytest.raises(RunNotFoundError, match=r"^no run has an empty name$"):
        find_runs([""])


def test_several_candidates_are_listed_newest_first(home):
    bare_run(Path("runs"), "llama-00000000", age=200_000)
    new = bare_run(home / "elsewhere", "llama-11111111")
    remember_runs_dir(home / "elsewhere")
    with pytest.raises(RunNotFoundError, match="llama: more than one run is called so or begins so") as caught:
        find_run("llama")
    lines = caught.value.message.splitlines()
    assert lines[1].split() == ["llama-11111111", "submitted", "2023-11-14", lines[1].split()[3], str(new.path)]
    assert lines[2].split()[:3] == ["llama-00000000", "submitted", "2023-11-12"]
    assert caught.value.exit_code == 102


def test_a_long_list_of_candidates_is_cut():
    for number in range(15):
        bare_run(Path("runs"), f"llama-{number:08d}", age=number)
    with pytest.raises(RunNotFoundError) as caught:
        find_run("llama")
    lines = caught.value.message.splitlines()
    assert len(lines) == 14 and lines[-1] == "  and 3 older ones"


def test_a_run_by_the_id_of_a_job(home):
    run = bare_run(Path("runs"), "llama-00000000", {"train": "123", "generate": "124"})
    bare_run(Path("runs"), "other-00000000", {"train": "1234"})
    local = bare_run(Path("runs"), "local-00000000", {"train": "local-77", "generate": "local-77"})
    assert find("123")[1:3] == ("train", None) and find("123").run.path == run.path
    assert find("124_3")[1:] == ("generate", 3, "124")
    assert find("124_[0-3%2]")[1:3] == ("generate", None)
    assert find("local-77")[1:3] == (None, None) and find("local-77").run.path == local.path
    assert find("local-77_1")[1:3] == (None, 1)


def test_a_job_that_was_submitted_again_is_still_the_runs():
    run = bare_run(Path("runs"), "llama-00000000", {"train": "200"})
    text = run.submission.read_text()
    run.submission.write_text(text.replace('"jobs": [', '"jobs": [{"stage": "train", "job_id": "123"},'))
    assert find("123")[1:3] == ("train", None)


def test_an_id_of_two_clusters_is_not_guessed(home):
    for name in ("llama-00000000", "other-00000000"):
        bare_run(Path("runs"), name, {"train": "123"})
    with pytest.raises(RunNotFoundError, match="123: more than one run has a job of this id") as caught:
        find_run("123")
    assert "llama-00000000" in caught.value.message and "other-00000000" in caught.value.message


def test_a_name_may_look_like_a_job():
    run = bare_run(Path("runs"), "123-00000000", {"train": "9"})
    assert find_run("123").path == run.path


def test_what_is_broken_beside_a_run_does_not_hide_it():
    bare_run(Path("runs"), "torn-00000000").submission.write_text('{"jobs": "123"')
    bare_run(Path("runs"), "odd-00000000").submission.write_text('["123"]')
    run = bare_run(Path("runs"), "llama-00000000", {"train": "123"}, age=5)
    assert find_run("123").path == run.path


@pytest.mark.parametrize(
    ("word", "message", "hint"),
    [
        ("lama-7b", "no run lama-7b in runs/", "did you mean llama-7b-0a1b2c3d?"),
        ("llama-7b-0a1b2c3e", "no run llama-7b-0a1b2c3e in runs/", "did you mean llama-7b-0a1b2c3d?"),
        ("qwen", "no run qwen in runs/", "hpcsft runs lists those that are known; or name its directory"),
        ("runs/llama-7b-0a1b2c3", "runs/llama-7b-0a1b2c3: no run here", "did you mean runs/llama-7b-0a1b2c3d?"),
        ("runs", "runs: no run here", "a run directory is what submit printed: RUNS_DIR/NAME-HASH, with a spec.json"),
        ("123", "no job 123 of a run in runs/, nor in Slurm", "or name its run directory"),
        ("local-123", "no job local-123 of a run in runs/, nor in Slurm", "or name its run directory"),
    ],
)
def test_what_is_no_run_is_told_with_what_is_near(word, message, hint, home):
    bare_run(Path("runs"), "llama-7b-0a1b2c3d")
    with pytest.raises(RunNotFoundError) as caught:
        find_run(word)
    assert caught.value.message == message
    assert (caught.value.hint or "").startswith(hint)


def test_a_run_of_somebody_else_is_told(home, monkeypatch):
    run = bare_run(home / "theirs", "llama-00000000")
    monkeypatch.setattr(Path, "is_file", lambda self: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(RunNotFoundError, match="llama-00000000: Permission denied") as caught:
        find_run(str(run.path))
    assert caught.value.hint == "is it a run of somebody else?"


def test_several_runs_each_once_and_folders_of_runs(home):
    old, new = bare_run(home / "a", "old-00000000", age=9), bare_run(home / "a", "new-00000000", age=1)
    here = bare_run(Path("runs"), "here-00000000")
    paths = [run.path for run in find_runs([str(old.path), str(home / "a"), "here", "runs"])]
    assert paths == [old.path, new.path, here.path]


def test_no_word_is_the_newest_run_of_all_places(home):
    with pytest.raises(RunNotFoundError, match=r"^no run in runs/$") as caught:
        find_runs([])
    assert caught.value.hint == "name a run directory"
    bare_run(Path("runs"), "old-00000000", age=9)
    new = bare_run(home / "a", "new-00000000", age=1)
    remember_runs_dir(home / "a")
    assert [run.path for run in find_runs([])] == [new.path]
    new.spec.unlink()  # half removed
    assert find_runs([])[0].path.name == "old-00000000"


def fake_scontrol(home: Path, body: str) -> None:
    (home / "bin").mkdir()
    (home / "bin" / "scontrol").write_text(f"#!/bin/sh\n{body}\n")
    (home / "bin" / "scontrol").chmod(0o755)


def test_slurm_is_asked_about_a_job_that_is_in_no_known_run(home):
    run = bare_run(home / "un known", "llama-00000000")
    fields = f"JobId=130 ArrayJobId=123 ArrayTaskId=4 JobName=llama WorkDir={run.path}/code"
    fields += " Comment=hpcsft:llama-00000000:generate StdErr=/x"
    fake_scontrol(home, f"echo '{fields}'")
    assert find("130")[1:3] == ("generate", 4) and find("130").run.path == run.path
    assert find("123")[1:3] == ("generate", None), "the whole array was named"
    assert find("123_4")[1:] == ("generate", 4, "123")
    with pytest.raises(RunNotFoundError, match="no job 130"):
        find("130", ask_slurm=False)


def test_a_job_of_other_software_is_no_run(home):
    assert parse_job("JobId=1 WorkDir=/home/me/code Comment=nightly StdErr=/x") is None
    assert parse_job("JobId=1 WorkDir=/home/me/code Comment=hpcsft:other:train") is None
    assert parse_job("") is None


def test_a_slurm_that_does_not_answer_is_told(home):
    fake_scontrol(home, "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(ClusterError, match="job 123 is of no run in runs/, and Slurm cannot be asked") as caught:
        find_run("123")
    assert caught.value.exit_code == 3
