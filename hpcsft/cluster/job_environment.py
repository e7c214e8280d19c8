"""Which variables of the environment jobs get: a list of what is allowed, and never a secret of another stage.

What sbatch sees reaches every task, is kept in Slurm's spool, and where a site stores jobs' environments in its
accounting, in a database too. Variables of the user's own reach jobs by way of `cluster.env`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping

from hpcsft.secrets import holds_credentials, looks_secret
from hpcsft.spec import ExperimentSpec

NAMES = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR"),
        *("BASH_ENV", "BASH_FUNC_module%%", "BASH_FUNC_ml%%", "BASH_FUNC__module_raw%%", "ENV", "_LMFILES_"),
        *("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "PKG_CONFIG_PATH", "MANPATH"),
        *("CC", "CXX", "CUTLASS_PATH", "LOCALE_ARCHIVE", "BASH_FUNC_which%%"),
        *("SLURM_CONF", "SLURM_MPI_TYPE"),
        *("SCRATCH", "SCRATCHDIR", "WORK", "WORKDIR", "PROJECT", "STORE"),
        *("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"),
        *("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NO_COLOR"),
    )
)
"""Variables that jobs get."""

PREFIXES = (
    *("LC_", "LD_", "XDG_"),
    *("MODULE", "LOADEDMODULES", "__MODULES", "_ModuleTable", "LMOD", "__LMOD", "SPACK_", "EBROOT", "EBVERSION"),
    *("CONDA_", "_CONDA_", "MAMBA_", "VIRTUAL_ENV", "PYTHON", "APPTAINER", "SINGULARITY", "ENROOT_"),
    *("CUDA", "NVIDIA_", "CUBLAS", "CUDNN", "NCCL_", "TORCH", "PYTORCH_", "TRITON_", "DS_", "DEEPSPEED_"),
    *("NVCC_", "NVHPC", "NVSHMEM_", "NVTE_"),
    *("ROCM_", "HIP_", "HSA_", "ROCR_", "RCCL_", "MIOPEN_", "AMD_", "GPU_MAX_"),
    *("ONEAPI_", "INTEL", "CCL_", "SYCL_", "ZE_FLAT_", "TBBROOT", "CMPLR_ROOT", "SETVARS_"),
    *("CRAY", "PE_", "MPICH_", "PMIX_MCA_"),
    *("GLOO_", "UCX_", "UCC_", "FI_", "OMPI_", "I_MPI_", "PSM2_", "PSM3_", "IBV_", "RDMAV_", "MLX5_", "KRB5"),
    *("OMP_", "MKL", "KMP_", "GOMP_", "OPENBLAS_", "NUMEXPR_", "RAYON_", "MALLOC_"),
    *("HF_", "TRANSFORMERS_", "TOKENIZERS_", "ACCELERATE_", "FLASH_ATTENTION_", "HPCSFT_"),
)
"""What the names of further variables that jobs get begin with."""

USED = re.compile(r"\$\{?([A-Za-z_]\w*)", re.ASCII)
"""A variable in a shell line, such as $SCRATCH or ${WORK}."""

TRACKER = "WANDB_"
"""Of the stage train, if it has this tracker."""

ENDPOINT = {"openai": ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"), "anthropic": ("ANTHROPIC_BASE_URL",)}
"""Of the stage judge, by the kind of judge."""


def job_environment(spec: ExperimentSpec, stage: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What of `environ` the jobs of `stage` get. Pure.

    Those in the lists above, and those that the lines of `cluster.setup` use. Nothing that looks like a secret, by its
    name or as an address with a password, unless `spec` names it for this very stage.
    """
    named = set(stage_variables(spec, stage))
    used = {name for line in spec.cluster.setup for name in USED.findall(line)}
    tracked = stage == "train" and "wandb" in spec.train.trackers
    return {
        name: value
        for name, value in environ.items()
        if name in named
        or (tracked and name.startswith(TRACKER))
        or (
            (name in NAMES or name in used or name.startswith(PREFIXES))
            and not looks_secret(name)
            and not holds_credentials(value)
        )
    }


def stage_variables(spec: ExperimentSpec, stage: str) -> list[str]:
    """Variables, secret or not, that `spec` names for `stage`: for the judge its key and its address, and, as any
    stage's end may have to be told, the webhook's."""
    names = [spec.notify.webhook_variable] if spec.notify and spec.notify.webhook_variable else []
    if stage == "judge" and spec.evaluate:
        judge = spec.evaluate.judge
        names += ENDPOINT.get(judge.kind, ())
        names += [judge.key_variable] if judge.kind in ENDPOINT and not judge.api_key_file else []
    return names


@contextlib.contextmanager
def only_for_jobs(spec: ExperimentSpec, stage: str, more: Mapping[str, str] | None = None) -> Iterator[None]:
    """While this lasts the environment is that of the jobs of `stage`, and `more`."""
    kept = dict(os.environ)
    wanted = {**job_environment(spec, stage, kept), **(more or {})}
    try:
        os.environ.clear()
        os.environ.update(wanted)
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
