"""An environment that lacks what the spec asks for ends every job at its start: found here, with what mends it."""

from __future__ import annotations

from packaging.requirements import Requirement

from hpcsft.preflight.environment.packages import Environment
from hpcsft.preflight.environment.versions import environment_findings, package_findings, requirements, versions_text
from tests.preflight.made import planned

STAGES = ["preprocess", "train", "report"]


def environment(**values) -> Environment:
    """One that fits."""
    versions = {requirement.name.lower(): "99" for requirement in requirements()[1][""]}
    known = {"prefix": "/env", "python": "3.11.2", "versions": versions, "cuda": "12.4"}
    return Environment(**{**known, **values})


def found(environment: Environment | None, **sections) -> list[str]:
    spec, plan = planned(**sections)
    findings = environment_findings(spec, plan, STAGES, environment)
    return [line for finding in findings for line in [*finding.lines(), *(["forcible"] if finding.forcible else [])]]


def test_setup_cfg_is_what_counts():
    python, packages = requirements()
    assert python == ">=3.10" and {"torch", "deepspeed"} <= {each.name for each in packages[""]}
    assert packages["lora"][0].name == "peft"


def test_an_environment_that_fits():
    assert found(environment(), cluster={"gpus_per_node": 1}) == []


def test_what_is_missing_or_old():
    wanted = [Requirement("torch>=2.6"), Requirement("PyYAML>=6"), Requirement("deepspeed>=0.19.8")]
    there = Environment(prefix="/env", python="3.11", versions={"torch": "2.4.0+cu121"})
    error, warning = package_findings("cluster.venv", there, wanted)
    assert error.lines() == [
        "error: cluster.venv: not installed in /env: PyYAML, deepspeed",
        "hint: /env/bin/python -m pip install 'PyYAML>=6' 'deepspeed>=0.19.8'",
    ]
    assert warning.level == "warning" and warning.message.endswith("not made for: torch 2.4.0+cu121")
    assert warning.hint == "/env/bin/python -m pip install 'torch>=2.6'"


def test_builds_with_a_local_version_are_in_range():
    there = Environment(prefix="/env", python="3.11", versions={"torch": "2.6.0+cu124"})
    assert not list(package_findings("x", there, [Requirement("torch>=2.6")]))


def test_a_python_that_is_too_old():
    error, *_ = found(environment(python="3.9"), cluster={"venv": "/env"})
    assert error == "error: cluster.venv: /env: Python 3.9, and hpcsft needs >=3.10"


def test_a_torch_for_cpus_sees_no_gpus():
    cpu = environment(torch_is_cpu_build=True, cuda=None)
    assert found(cpu) == []
    error, *_ = found(cpu, cluster={"gpus_per_node": 4})
    assert error.startswith("error: python: torch 99 in /env is built for CPUs, and GPUs are asked for (cluster.gpus")
    assert found(cpu, cluster={"gpus_per_node": 4})[-1] == "forcible", "nodes may have another"
    (warning, *_) = found(cpu, cluster={"gpus_per_node": 4, "modules": ["pytorch/2.6"]})
    assert warning.startswith("warning: python: torch 99 in /env is built for CPUs"), "the module may bring another"


def test_packages_that_only_some_specs_need():
    lacking = environment()
    assert found(lacking, model={"lora": {}})[0] == "error: model.lora: not installed in /env: peft"
    assert "not installed in /env: tensorboard" in found(lacking, train={"trackers": ["tensorboard"]})[0]


def test_flash_attention():
    asked = {"attention": "flash_attention_2"}
    assert "computes on GPUs only" in found(environment(), model=asked)[0]
    assert "flash-attn is not installed in /env" in found(environment(), model=asked, cluster={"gpus_per_node": 1})[0]
    with_it = environment()
    with_it.versions["flash-attn"] = "2.7"
    assert found(with_it, model=asked, cluster={"gpus_per_node": 1}) == []


def test_a_container_is_not_looked_into():
    (note, _) = found(None)
    assert note.startswith("note: cluster.container: what is installed in the image was not looked at")


def test_versions_in_a_line():
    assert versions_text({"python": "3.11.2", "torch": "2.6.0", "nccl": None}) == "python 3.11.2, torch 2.6.0"


def test_a_build_of_the_site_counts_as_its_version_and_an_odd_one_as_fitting():
    for version in ("2.6.0a0+ecf3bae", "2.6.0rc1", "2.6.cuda118-gcc", "unknown"):
        there = Environment(prefix="/env", python="3.11", versions={"torch": version})
        assert not list(package_findings("x", there, [Requirement("torch>=2.6")])), version


def test_what_modules_setup_or_a_path_may_bring_is_a_warning(monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    lacking = environment(versions={})
    assert found(lacking)[0].startswith("error: python: not installed in /env")
    assert found(lacking, cluster={"modules": ["cuda/12.4"]})[0].startswith("error: python: not installed in /env")
    for brings in ({"modules": ["pytorch"]}, {"setup": ["source env.sh"]}, {"env": {"PYTHONPATH": "/apps/torch"}}):
        warning, hint = found(lacking, cluster=brings)
        assert warning.startswith("warning: python: not installed in /env: torch")
        assert warning.endswith("unless its modules, setup or PYTHONPATH bring that") and "if they do not" in hint
