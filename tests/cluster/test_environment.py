"""The shell lines around srun, run by a real bash: what a job's environment becomes, and that what it lacks is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcsft.cluster.environment import after_setup, before_setup, environment_text, ranks_command, srun_options
from hpcsft.plan import make_plan
from hpcsft.records import read_json, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec, parse_spec
from tests.attempt.made import empty_run, journal
from tests.launch.command import ROOT, environment

LMOD = """\
module() {
    [ "$1" = load ] || return 2
    case "$2" in good* | also*) LOADEDMODULES="${LOADEDMODULES:+$LOADEDMODULES:}$2/1.0"; export FROM_MODULE=$2 ;;
    alias) LOADEDMODULES="${LOADEDMODULES:+$LOADEDMODULES:}other/2" ;;
    *) echo "Lmod has detected the following error: unknown: $2" >&2; return 1 ;; esac
}
"""
OLD_TCL = """\
module() {
    case "$2" in good*) LOADEDMODULES="good/1.0" ;; loaded) ;;
    *) echo "ModuleCmd_Load.c(213):ERROR:105: Unable to locate a modulefile for '$2'" >&2 ;; esac
    return 0
}
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run whose code is the checkout's."""
    run = empty_run(tmp_path)
    run.code.symlink_to(ROOT)
    return run


def spec_of(run: RunDir, **cluster: Any) -> ExperimentSpec:
    """The run's spec with `cluster` changed, which is written back."""
    values = read_json(run.spec)
    values["cluster"].update(kind="slurm", **cluster)
    spec = parse_spec(values)
    write_json(run.spec, spec)
    return spec


def bash(
    run: RunDir, spec: ExperimentSpec, last: str, tmp_path: Path, stage: str = "train", **env: str
) -> subprocess.CompletedProcess[str]:
    """The lines before srun, and `last` in its place."""
    plan = make_plan(spec).stage(stage)
    lines = [*before_setup(spec, run, plan), *spec.cluster.setup, f"cd {run.code}", *after_setup(spec, plan), last]
    kept = {name: value for name, value in environment().items() if not name.startswith(("MODULE", "LMOD", "LOADED"))}
    job = {"SLURM_JOB_ID": "44", "SLURMD_NODENAME": "n7", "PYTHONHOME": "", **env}
    return subprocess.run(
        ["bash", "-c", "\n".join(lines)], env={**kept, **job}, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )


def module_tool(folder: Path, text: str) -> dict[str, str]:
    """Where a module tool of this text is found."""
    (folder / "tool/init").mkdir(parents=True)
    (folder / "tool/init/bash").write_text(text)
    return {"MODULESHOME": str(folder / "tool")}


def told(run: RunDir) -> dict[str, Any]:
    """What the run directory says of the attempt that could not begin."""
    failed, end = journal(run).rows()
    status = run.read_status("train", 0, 1)
    assert (failed["event"], end["event"], end["cause"], end["status"]) == ("failed", "end", "environment", 1)
    assert (status.state, status.message, status.job_id) == ("failed", failed["message"], "44")
    return dict(failed)


@pytest.mark.parametrize(("tool", "names"), [(LMOD, ["good", "also/3", "alias"]), (OLD_TCL, ["good", "loaded"])])
def test_modules_are_loaded_in_order_by_whatever_tool_there_is(run, tmp_path, tool, names):
    spec = spec_of(run, modules=names)
    loaded = {"LOADEDMODULES": "before/1"} if tool == LMOD else {}
    done = bash(run, spec, 'echo "$LOADEDMODULES $FROM_MODULE"', tmp_path, **module_tool(tmp_path, tool), **loaded)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("before/1:good/1.0:also/3/1.0:other/2 also/3\n" if tool == LMOD else "good/1.0 \n")


@pytest.mark.parametrize("tool", [LMOD, OLD_TCL])
def test_a_module_that_does_not_load_ends_the_job_by_its_name(run, tmp_path, tool):
    """Also where the tool itself says that all is well."""
    spec = spec_of(run, modules=["good", "nope/9", "also"])
    done = bash(run, spec, "echo srun", tmp_path, **module_tool(tmp_path, tool))
    assert (done.returncode, done.stdout) == (1, "")
    message = "cluster.modules: the module nope/9 does not load (on n7)"
    assert f"error: {message}" in done.stderr and "nope/9" in done.stderr.splitlines()[0]
    row = told(run)
    assert row["message"] == message
    assert row["hint"].endswith(f"python launch/resume.py {run.path} --set cluster.modules=...")


def test_without_a_module_tool_the_job_says_so(run, tmp_path):
    lines = before_setup(spec := spec_of(run, modules=["good"]), run, make_plan(spec).stage("train"))
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines).replace("/etc/", "/nowhere/").replace("/usr/share/", "/nowhere/")],
        env={"PATH": os.environ["PATH"], "SLURM_JOB_ID": "44", "SLURMD_NODENAME": "n7"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and told(run)["message"] == "cluster.modules: there is no command module (on n7)"


def prefix_of(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(sys.executable)
    return folder


def test_a_venv_is_active_when_the_users_setup_runs(run, tmp_path):
    prefix = prefix_of(tmp_path / "env")
    spec = spec_of(run, venv=str(prefix), setup=['echo "$(command -v python) $VIRTUAL_ENV ${PYTHONHOME-unset}"'])
    done = bash(run, spec, "echo srun", tmp_path)
    assert done.stdout == f"{prefix}/bin/python {prefix} unset\nsrun\n", done.stderr
    assert ranks_command(spec, run, make_plan(spec).stage("train"), []) == f"{prefix}/bin/python"


def test_a_conda_environment_is_active_without_conda(run, tmp_path):
    """Its activation scripts set what compilers and libraries of the environment need."""
    prefix = prefix_of(tmp_path / "env")
    scripts = prefix / "etc/conda/activate.d"
    scripts.mkdir(parents=True)
    for name in ("a", "b"):
        (scripts / f"{name}.sh").write_text(f'export FROM_{name}="{name} in $CONDA_PREFIX"\n')
    (scripts / "c.fish").write_text("exit 9\n")
    spec = spec_of(run, conda=str(prefix))
    done = bash(run, spec, 'echo "$(command -v python)|$CONDA_DEFAULT_ENV|$FROM_a|$FROM_b"', tmp_path)
    assert done.stdout == f"{prefix}/bin/python|{prefix}|a in {prefix}|b in {prefix}\n", done.stderr


@pytest.mark.parametrize("field", ["venv", "conda"])
def test_an_interpreter_that_the_node_does_not_see_is_named(run, tmp_path, field):
    done = bash(run, spec_of(run, **{field: "/nowhere/env"}), "echo srun", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert told(run)["message"] == f"cluster.{field}: there is no /nowhere/env/bin/python (on n7)"


def test_training_meets_at_the_address_of_the_interface(run, tmp_path):
    spec = spec_of(run, network={"interface": "lo", "infiniband": False})
    show = 'echo "$HPCSFT_MASTER_ADDR $NCCL_SOCKET_IFNAME $GLOO_SOCKET_IFNAME $NCCL_IB_DISABLE"'
    assert bash(run, spec, show, tmp_path).stdout == "127.0.0.1 =lo lo 1\n"
    assert bash(run, spec, show, tmp_path, stage="report").stdout == "   \n"


def test_an_interface_without_an_address_is_named_with_those_that_have_one(run, tmp_path):
    done = bash(run, spec_of(run, network={"interface": "ib9"}), "echo srun", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    message = told(run)["message"]
    assert message.startswith("cluster.network.interface: ib9 has no IPv4 address here; interfaces that have one: lo")


@pytest.mark.parametrize(
    ("runtime", "image", "lacking"),
    [
        ("apptainer", "/tmp", "cluster.container.runtime: there is no apptainer; a module may bring it"),
        ("pyxis", "/nowhere.sqsh", "cluster.container.image: there is no /nowhere.sqsh"),
    ],
)
def test_a_container_that_cannot_start_is_told_before_srun(run, tmp_path, runtime, image, lacking):
    done = bash(run, spec_of(run, container={"runtime": runtime, "image": image}), "echo srun", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert told(run)["message"].startswith(lacking)


def tool_on_path(folder: Path, name: str, text: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("answer", "end"), [("echo 2030-01-02T03:04:05", "1893553445"), ("echo NONE", ""), ("exit 1", ""), ("true", "")]
)
def test_a_container_is_told_when_the_job_ends(run, tmp_path, answer, end):
    """In it nobody can ask Slurm; without an answer there is no end, and no midnight of today either."""
    tool_on_path(tmp_path / "bin", "squeue", answer)
    path = tool_on_path(tmp_path / "bin", "apptainer", "true")
    spec = spec_of(run, container={"runtime": "apptainer", "image": "/tmp"})
    done = bash(run, spec, 'echo "[$SLURM_JOB_END_TIME]"', tmp_path, PATH=path, TZ="UTC")
    assert (done.stdout, done.stderr) == (f"[{end}]\n", "")
    known = bash(run, spec, 'echo "[$SLURM_JOB_END_TIME]"', tmp_path, PATH=path, SLURM_JOB_END_TIME="7")
    assert known.stdout == "[7]\n"


def test_variables_of_the_spec_win_over_those_of_an_image(run, tmp_path):
    path = tool_on_path(tmp_path / "bin", "singularity", "true")
    value = 'it\'s $HOME, "x"\n`touch canary`'
    spec = spec_of(run, container={"runtime": "singularity", "image": "/tmp"}, env={"A": value, "B": "1"})
    done = bash(run, spec, 'printf "%s|%s" "$SINGULARITYENV_A" "$A"', tmp_path, PATH=path)
    assert done.stdout == f"{value}|{value}", done.stderr
    assert not (tmp_path / "canary").exists()


def test_a_container_is_started_with_all_that_it_has_to_see(run):
    container = {"runtime": "apptainer", "image": "/images/a.sif", "options": ["--writable-tmpfs"], "python": "python3"}
    spec = spec_of(run, container=container, gpus_per_node=2)
    plan = make_plan(spec)
    command = ranks_command(spec, run, plan.stage("train"), ["/a b:/a b:ro", "/c:/c"])
    assert command == (
        "env -u PYTHONHOME -u PYTHONPATH PYTHONNOUSERSITE=1 apptainer exec --no-home --nv --writable-tmpfs "
        f"--bind '/a b:/a b:ro' --bind /c:/c --pwd {run.code} /images/a.sif python3"
    )
    assert " --nv " not in ranks_command(spec, run, plan.stage("report"), [])
    assert srun_options(spec, run, plan.stage("train"), ["/c:/c"]) == []


def test_pyxis_is_told_the_same_through_srun(run):
    container = {"runtime": "pyxis", "image": "nvcr.io#nvidia/pytorch:24.01-py3"}
    spec = spec_of(run, container=container, env={"A": "1"}, network={"infiniband": True})
    plan = make_plan(spec)
    assert srun_options(spec, run, plan.stage("train"), ["/a:/a:ro", "/c:/c"]) == [
        "--container-image=nvcr.io#nvidia/pytorch:24.01-py3",
        "--container-mounts=/a:/a:ro,/c:/c",
        f"--container-workdir={run.code}",
        "--container-env=A,NCCL_IB_DISABLE",
        "--no-container-mount-home",
    ]
    command = ranks_command(spec, run, plan.stage("train"), ["/a:/a:ro"])
    assert command == "env -u PYTHONHOME -u PYTHONPATH PYTHONNOUSERSITE=1 python3"
    mounting = spec_of(run, container={**container, "options": ["--container-mount-home"]})
    assert "--no-container-mount-home" not in srun_options(mounting, run, plan.stage("train"), [])


def test_a_spec_without_any_of_it_adds_no_line(run):
    spec = spec_of(run)
    train = make_plan(spec).stage("train")
    assert before_setup(spec, run, train) == [] and after_setup(spec, train) == []
    assert ranks_command(spec, run, train, []) == sys.executable


def test_people_are_told_the_environment_in_one_line(run):
    assert environment_text(spec_of(run)) == sys.executable
    spec = spec_of(run, modules=["a", "b/1"], venv="/x", setup=["true"], env={"K": "v"}, network={"interface": "ib0"})
    assert environment_text(spec) == "modules a, b/1; venv /x; 1 line(s) of setup; env K; network ib0"
    container = {"runtime": "apptainer", "image": "/i.sif"}
    spec = spec_of(run, modules=[], venv=None, setup=[], env={}, container=container, network={"infiniband": False})
    assert environment_text(spec) == "apptainer /i.sif, python3 in it; InfiniBand off"
