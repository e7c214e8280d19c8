"""What a job does before its ranks start, and what then starts them: modules, interpreter, container, network. Pure.

The batch script runs on the job's first node. What is missing there ends the job at once, with a message that names it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from hpcsft.plan import StagePlan
from hpcsft.rundir import RunDir
from hpcsft.shell import command, quoted
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.environment import ContainerSpec

MODULE_INITS = (
    "$LMOD_PKG/init/bash",
    "$MODULESHOME/init/bash",
    "/etc/profile.d/lmod.sh",
    "/etc/profile.d/z00_lmod.sh",
    "/etc/profile.d/modules.sh",
    "/usr/share/lmod/lmod/init/bash",
    "/usr/share/Modules/init/bash",
    "/usr/share/modules/init/bash",
)
"""Files that define the command `module`, which a shell that is no login shell may lack."""

LOAD_MODULE = """\
load_module() {
    local before=$LOADEDMODULES
    module load "$1" || environment_failed "cluster.modules: the module $1 does not load"
    case ":$LOADEDMODULES:" in *":$1:"* | *":$1/"*) return ;; esac
    # Old Environment Modules return 0 whatever happens: nothing new is loaded, and an error is printed.
    if [ "$LOADEDMODULES" = "$before" ] && (module load "$1") 2>&1 | grep -qi error; then
        environment_failed "cluster.modules: the module $1 does not load"
    fi
}"""


def interpreter(spec: ExperimentSpec) -> str:
    """The Python that runs the stages: that of the container, venv or conda environment, or the one that submits."""
    cluster = spec.cluster
    if cluster.container:
        return cluster.container.python
    prefix = cluster.venv or cluster.conda
    return f"{prefix}/bin/python" if prefix else sys.executable


def before_setup(
    spec: ExperimentSpec, run: RunDir, stage: StagePlan, job: str = "SUBMITIT_EXECUTOR=slurm"
) -> list[str]:
    """Shell lines ahead of the user's own setup. `job` are the variables that tell which job this is."""
    lines = [*_modules(spec), *_activation(spec)]
    checked = lines or spec.cluster.container or spec.cluster.network.interface
    return [_on_failure(run, stage, job), *lines] if checked else []


def after_setup(spec: ExperimentSpec, stage: StagePlan) -> list[str]:
    """Shell lines behind the user's own setup: variables, the container, the address at which the ranks meet."""
    network = spec.cluster.network_variables() if stage.name == "train" else {}
    lines = [f"export {name}={quoted(value)}" for name, value in sorted({**network, **spec.cluster.env}.items())]
    if container := spec.cluster.container:
        lines += _container_checks(container, [*network, *spec.cluster.env])
    if stage.name == "train" and (interface := spec.cluster.network.interface):
        ask = command([sys.executable, "-m", "hpcsft.attempt.address", interface])
        lines.append(f'HPCSFT_MASTER_ADDR=$({ask}) || environment_failed "$HPCSFT_MASTER_ADDR"')
        lines.append("export HPCSFT_MASTER_ADDR")
    return lines


def ranks_command(spec: ExperimentSpec, run: RunDir, stage: StagePlan, mounts: Sequence[str]) -> str:
    """The shell words that start Python in a rank; `mounts` are what a container has to see."""
    container = spec.cluster.container
    if container is None:
        return quoted(interpreter(spec))
    # The host's packages are no business of the image's Python, nor are those in the user's home.
    words = ["env", "-u", "PYTHONHOME", "-u", "PYTHONPATH", "PYTHONNOUSERSITE=1"]
    if container.runtime != "pyxis":
        words += [container.runtime, "exec", "--no-home", *(["--nv"] if stage.gpus_per_node else [])]
        words += container.options
        words += [word for mount in mounts for word in ("--bind", mount)]
        words += ["--pwd", str(run.code), container.image]
    return command([*words, container.python])


def srun_options(spec: ExperimentSpec, run: RunDir, stage: StagePlan, mounts: Sequence[str]) -> list[str]:
    """Options of srun for a container that srun itself starts; none otherwise."""
    container = spec.cluster.container
    if container is None or container.runtime != "pyxis":
        return []
    home = [] if "--container-mount-home" in container.options else ["--no-container-mount-home"]
    names = sorted({*spec.cluster.env, *(spec.cluster.network_variables() if stage.name == "train" else ())})
    return [
        f"--container-image={container.image}",
        f"--container-mounts={','.join(mounts)}",
        f"--container-workdir={run.code}",
        *([f"--container-env={','.join(names)}"] if names else []),  # or the image's own would win
        *home,
        *container.options,
    ]


def environment_text(spec: ExperimentSpec) -> str:
    """The environment of the stages in one line, for people."""
    cluster, network = spec.cluster, spec.cluster.network
    parts = [f"modules {', '.join(cluster.modules)}"] if cluster.modules else []
    if cluster.container:
        parts.append(f"{cluster.container.runtime} {cluster.container.image}, {cluster.container.python} in it")
    elif cluster.venv or cluster.conda:
        parts.append(f"venv {cluster.venv}" if cluster.venv else f"conda {cluster.conda}")
    else:
        parts.append(sys.executable)
    parts += [f"{len(cluster.setup)} line(s) of setup"] if cluster.setup else []
    parts += [f"env {', '.join(sorted(cluster.env))}"] if cluster.env else []
    parts += [f"network {network.interface}"] if network.interface else []
    parts += [f"InfiniBand {'on' if network.infiniband else 'off'}"] if network.infiniband is not None else []
    return "; ".join(parts)


def _on_failure(run: RunDir, stage: StagePlan, job: str) -> str:
    """A shell function that tells the run directory why the job cannot go on, and ends it."""
    tell = command([sys.executable, "-m", "hpcsft.attempt.environment_failed", run.path, stage.name])
    return f"""\
environment_failed() {{
    echo "error: $1 (on ${{SLURMD_NODENAME:-$HOSTNAME}})" >&2
    cd {quoted(run.code)} && {job} {tell} "$1 (on ${{SLURMD_NODENAME:-$HOSTNAME}})"
    exit 1
}}"""


def _modules(spec: ExperimentSpec) -> Iterator[str]:
    if not spec.cluster.modules:
        return
    inits = " ".join(f'"{init}"' for init in MODULE_INITS)
    yield f"""\
for init in {inits}; do
    type module > /dev/null 2>&1 && break
    [ ! -r "$init" ] || . "$init"
done
type module > /dev/null 2>&1 || environment_failed "cluster.modules: there is no command module"
{LOAD_MODULE}"""
    yield from (f"load_module {quoted(name)}" for name in spec.cluster.modules)


def _activation(spec: ExperimentSpec) -> Iterator[str]:
    """What the activation of a virtual or conda environment does, without its own script or conda being there."""
    venv, conda = spec.cluster.venv, spec.cluster.conda
    prefix = venv or conda
    if prefix is None:
        return
    missing = f"cluster.{'venv' if venv else 'conda'}: there is no {prefix}/bin/python"
    yield f"[ -x {quoted(f'{prefix}/bin/python')} ] || environment_failed {quoted(missing)}"
    yield "unset PYTHONHOME"
    yield f"export PATH={quoted(f'{prefix}/bin')}:$PATH"
    if venv:
        yield f"export VIRTUAL_ENV={quoted(venv)}"
    else:
        yield f"export CONDA_PREFIX={quoted(prefix)} CONDA_DEFAULT_ENV={quoted(prefix)}"
        yield f'for script in {quoted(prefix)}/etc/conda/activate.d/*.sh; do [ ! -r "$script" ] || . "$script"; done'


def _container_checks(container: ContainerSpec, variables: Sequence[str]) -> Iterator[str]:
    if container.runtime != "pyxis":
        lacking = f"cluster.container.runtime: there is no {container.runtime}; a module may bring it (cluster.modules)"
        yield f"command -v {container.runtime} > /dev/null || environment_failed {quoted(lacking)}"
        # Variables of this form win over those of the image.
        yield from (f'export {container.runtime.upper()}ENV_{name}="${name}"' for name in variables)
    if container.image_is_file:
        missing = f"cluster.container.image: there is no {container.image}"
        yield f"[ -e {quoted(container.image)} ] || environment_failed {quoted(missing)}"
    # There are no clients of Slurm inside; 22.05 does not tell the end by itself.
    ask = 'SLURM_TIME_FORMAT=standard timeout 30 squeue -h -t all -j "$SLURM_JOB_ID" -o %e | date -f - +%s'
    yield f'export SLURM_JOB_END_TIME="${{SLURM_JOB_END_TIME:-$({ask} 2> /dev/null)}}"'
