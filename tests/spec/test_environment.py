"""What makes the environment of a job is written into shell lines: small alphabets, and one source for each thing."""

from __future__ import annotations

import pytest

from hpcsft.errors import SpecError
from hpcsft.spec import parse_spec
from tests.spec.values import changed, minimal

APPTAINER = minimal(cluster={"container": {"runtime": "apptainer", "image": "/images/a.sif"}})
PYXIS = minimal(cluster={"container": {"runtime": "pyxis", "image": "nvcr.io#nvidia/pytorch:24.01-py3"}})


def refused(values: dict, path: str, value: object) -> str:
    with pytest.raises(SpecError, match="1 problem") as caught:
        parse_spec(changed(values, path, value))
    return caught.value.lines()[0]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("cluster.modules", ["cuda/12.4", "GCC/13.2.0", "nvhpc-24.5", "libstdc++/13"]),
        ("cluster.venv", "~/envs/a"),
        ("cluster.network.interface", "ib0"),
        ("cluster.network.interface", "enp225s0f0np0"),
        ("cluster.network.ports", [30000, 30000]),
        ("cluster.container.mounts", ["/scratch", "~/x:/x", "./here:/data:ro", "/a/b:/c:rw"]),
        ("cluster.container.options", ["--rocm", "--overlay=/scratch/me/o.img:ro", "--no-mount=tmp,home"]),
        ("cluster.container.python", "/opt/conda/bin/python3.11"),
    ],
)
def test_what_clusters_really_use_is_allowed(path, value):
    parse_spec(changed(APPTAINER if "container" in path else minimal(), path, value))


@pytest.mark.parametrize(
    ("path", "values", "told"),
    [
        ("cluster.modules", ["a b", "a;b", "$(a)", "-a", "../a", "a\nb", ""], "a module's name"),
        ("cluster.venv", ["/a b", "/a;b", "/$(a)", "/a'b", ""], "letters, digits and . _ / ~ + @ = , - only"),
        ("cluster.network.interface", ["ib0,ib1", "^docker", "=ib0", "a" * 16, "-i", "$(a)"], "one network interface"),
        ("cluster.network.ports", [[80, 90], [3000, 2000], [30000, 70000]], "1024 <= FIRST <= LAST <= 65535"),
        ("cluster.container.image", ["/a b.sif", "$(a)", "-h", "/a'b"], "a path or an address of an image"),
        ("cluster.container.mounts", ["/a:/b:/c", "/a,b", "/a:b", "/a b", "a", "/$(a)", "/a:/b:xx"], "SOURCE:TARGET"),
        ("cluster.container.options", ["-B", "--a b", "--a=$(b)", "a", "--bind /:/", "--x='y'"], "--NAME=VALUE"),
        ("cluster.container.python", ["python -c x", "$(a)", "-c", "a;b"], "the name or path of an interpreter"),
    ],
)
def test_nothing_else_reaches_a_shell(path, values, told):
    for value in values:
        given = [value] if path.endswith(("modules", "mounts", "options")) else value
        line = refused(APPTAINER if "container" in path else minimal(), path, given)
        assert line.startswith(f"error: {path}") and told in line


@pytest.mark.parametrize(
    ("values", "option"),
    [
        (APPTAINER, "--bind=/:/host"),
        (APPTAINER, "--cleanenv"),
        (APPTAINER, "--pwd=/"),
        (APPTAINER, "--container-name=a"),
        (PYXIS, "--container-mounts=/:/host"),
        (PYXIS, "--uid=0"),
        (PYXIS, "--rocm"),
    ],
)
def test_options_of_a_runtime_that_would_undo_what_is_set_are_refused(values, option):
    runtime = values["cluster"]["container"]["runtime"]
    line = refused(values, "cluster.container.options", [option])
    assert line.startswith(f"error: cluster.container: options: {option}: with {runtime} these may be given: --")


def test_an_image_is_fetched_once_and_not_by_every_rank():
    line = refused(APPTAINER, "cluster.container.image", "docker://python:3.11")
    assert "each rank would fetch docker://python:3.11 anew; give a file that `apptainer pull` makes" in line


def test_one_python_and_no_more():
    line = refused(minimal(cluster={"venv": "/a"}), "cluster.conda", "/b")
    assert line.startswith("error: cluster: venv and conda: each says which Python runs the stages; leave all but one")
    line = refused(APPTAINER, "cluster.venv", "/a")
    assert "venv and container: " in line


@pytest.mark.parametrize(
    ("network", "name"),
    [({"interface": "ib0"}, "NCCL_SOCKET_IFNAME"), ({"infiniband": True}, "NCCL_IB_DISABLE")],
)
def test_a_variable_of_the_network_has_one_source(network, name):
    line = refused(minimal(cluster={"network": network}), f"cluster.env.{name}", "x")
    assert f"env: {name} is set by network; leave one of the two out" in line
    parse_spec(minimal(cluster={"env": {name: "x"}}))


def test_the_network_is_told_to_nccl_and_gloo():
    def variables(**network):
        return parse_spec(minimal(cluster={"network": network})).cluster.network_variables()

    assert variables() == {}
    assert variables(interface="ib0") == {"NCCL_SOCKET_IFNAME": "=ib0", "GLOO_SOCKET_IFNAME": "ib0"}
    assert variables(infiniband=False) == {"NCCL_IB_DISABLE": "1"}
    assert variables(infiniband=True) == {"NCCL_IB_DISABLE": "0"}


def test_paths_become_absolute_and_addresses_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert parse_spec(minimal(cluster={"venv": "~/env"})).cluster.venv == "/home/someone/env"
    assert parse_spec(minimal(cluster={"conda": "env"})).cluster.conda == f"{tmp_path}/env"
    container = {"runtime": "singularity", "image": "a.sif", "mounts": ["./b:/b:ro", "~/c"]}
    found = parse_spec(minimal(cluster={"container": container})).cluster.container
    assert found.image == f"{tmp_path}/a.sif" and found.mounts == [f"{tmp_path}/b:/b:ro", "/home/someone/c"]
    assert parse_spec(PYXIS).cluster.container.image == "nvcr.io#nvidia/pytorch:24.01-py3"
    image = parse_spec(changed(PYXIS, "cluster.container.image", "./a.sqsh")).cluster.container.image
    assert image == f"{tmp_path}/a.sqsh"
