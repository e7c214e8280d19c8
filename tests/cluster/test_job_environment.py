"""Jobs get what they need of the environment, and no secret that is not theirs."""

from __future__ import annotations

import os
from typing import Any

import pytest

from hpcsft.cluster.job_environment import job_environment, only_for_jobs
from hpcsft.spec import ExperimentSpec, parse_spec
from tests.spec.values import minimal

STAGES = ("preprocess", "train", "generate", "benchmark", "judge", "report")

WANTED = {
    "PATH": "/usr/bin",
    "HOME": "/home/me",
    "LC_ALL": "C.UTF-8",
    "MODULEPATH": "/opt/modules",
    "LOADEDMODULES": "cuda/12",
    "BASH_FUNC_module%%": "() { :; }",
    "CONDA_PREFIX": "/opt/conda",
    "VIRTUAL_ENV": "/venv",
    "CUDA_HOME": "/usr/local/cuda",
    "NCCL_SOCKET_IFNAME": "ib0",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HOME": "/scratch/hf",
    "https_proxy": "http://proxy:3128",
    "SLURM_CONF": "/etc/slurm.conf",
    "SCRATCH": "/scratch/me",
    "CRAY_MPICH_DIR": "/opt/cray/pe/mpich",
    "PE_ENV": "GNU",
    "MPICH_GPU_SUPPORT_ENABLED": "1",
    "ONEAPI_ROOT": "/opt/intel/oneapi",
    "MKLROOT": "/opt/intel/mkl",
    "KRB5_CONFIG": "/etc/krb5.conf",
    "C_INCLUDE_PATH": "/opt/python/include",
    "NCCL_IB_PKEY": "0x8001",
}
UNWANTED = {
    "AWS_SECRET_ACCESS_KEY": "canary-aws",
    "HF_TOKEN": "canary-hf",
    "CONDA_TOKEN": "canary-conda",
    "http_proxy": "http://me:canary@proxy:3128",
    "HTTPS_PROXY": "me:canary@proxy:3128",
    "OPENAI_API_KEY": "canary-openai",
    "MY_JUDGE": "canary-mine",
    "HOOK": "https://hooks.example.org/canary",
    "WANDB_API_KEY": "canary-wandb",
    "SLURM_JOB_ID": "17",
    "SLURM_CPU_BIND": "quiet",
    "SBATCH_EXPORT": "ALL",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "MY_OWN": "1",
}


def spec_of(**sections: Any) -> ExperimentSpec:
    return parse_spec(minimal(**sections))


def added(spec: ExperimentSpec) -> dict[str, set[str]]:
    """Stage -> which of UNWANTED it gets all the same."""
    return {stage: set(job_environment(spec, stage, WANTED | UNWANTED)) - set(WANTED) for stage in STAGES}


def test_every_stage_gets_what_jobs_need_and_no_more():
    spec = spec_of()
    for stage in STAGES:
        assert job_environment(spec, stage, WANTED | UNWANTED) == WANTED


def test_the_key_reaches_the_judge_alone():
    spec = spec_of(evaluate={"prompts": "p"})
    assert added(spec) == {stage: {"OPENAI_API_KEY"} if stage == "judge" else set() for stage in STAGES}
    spec = spec_of(evaluate={"prompts": "p", "judge": {"api_key_env": "MY_JUDGE"}})
    assert added(spec)["judge"] == {"MY_JUDGE"}
    other = {"OPENAI_BASE_URL": "http://me:pw@host/v1", "ANTHROPIC_BASE_URL": "http://a"}
    assert set(job_environment(spec, "judge", other)) == {"OPENAI_BASE_URL"}, "else another endpoint would be asked"


@pytest.mark.parametrize("judge", [{"kind": "local", "model": "m"}, {"api_key_file": "/keys/judge"}])
def test_no_variable_with_a_key_reaches_a_judge_that_needs_none(judge):
    assert added(spec_of(evaluate={"prompts": "p", "judge": judge}))["judge"] == set()


def test_the_tracker_has_its_key_in_training_alone():
    assert added(spec_of(train={"trackers": ["wandb"]})) == {
        stage: {"WANDB_API_KEY"} if stage == "train" else set() for stage in STAGES
    }


def test_the_webhook_reaches_every_stage_for_any_may_be_the_last():
    assert added(spec_of(notify={"webhook": "$HOOK"})) == {stage: {"HOOK"} for stage in STAGES}


def test_the_environment_is_put_back_whatever_happens(monkeypatch):
    monkeypatch.setenv("MY_OWN", "1")
    before = dict(os.environ)
    with pytest.raises(KeyError, match="boom"), only_for_jobs(spec_of(), "train", {"GIVEN": "2"}):
        assert "MY_OWN" not in os.environ and os.environ["GIVEN"] == "2"
        os.environ["MADE_INSIDE"] = "3"
        raise KeyError("boom")
    assert dict(os.environ) == before


def test_what_a_line_of_setup_uses_is_there():
    """Sites set $SCRATCH and $WORK at login, which a batch script does not see by itself."""
    spec = spec_of(cluster={"setup": ["source $MY_OWN/env.sh", "export A=${SSH_AUTH_SOCK}", "echo $HF_TOKEN"]})
    assert added(spec) == {stage: {"MY_OWN", "SSH_AUTH_SOCK"} for stage in STAGES}
