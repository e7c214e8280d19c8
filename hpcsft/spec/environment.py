"""What a job's ranks run in: modules, an interpreter or a container, and the network between nodes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, field_validator, model_validator

from hpcsft.spec.base import Section, matching

APPTAINER_OPTIONS = (
    "--allow-setuid",
    "--contain",
    "--fakeroot",
    "--ipc",
    "--no-mount",
    "--no-privs",
    "--nvccli",
    "--overlay",
    "--rocm",
    "--unsquash",
    "--userns",
    "--writable-tmpfs",
)
"""What may be added to `apptainer exec`."""

PYXIS_OPTIONS = (
    "--container-mount-home",
    "--container-name",
    "--container-readonly",
    "--container-remap-root",
    "--container-writable",
    "--no-container-entrypoint",
    "--no-container-remap-root",
)
"""What of pyxis may be added to srun."""

FIRST_PORT, LAST_PORT = 20000, 31999
"""Rendezvous ports where the spec gives none: below the range from which Linux hands out ephemeral ports."""


_module = matching(
    r"[A-Za-z0-9][A-Za-z0-9._+/-]{0,127}",
    "a module's name, such as cuda/12.4: letters, digits and . _ + - / only",
)


_interface = matching(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}",
    "the name of one network interface as `ip link` shows it, such as ib0",
)


_image = matching(
    r"[A-Za-z0-9/~.][A-Za-z0-9._/:@#+~=-]{0,1023}",
    "a path or an address of an image: letters, digits and . _ / : @ # + ~ = - only",
)


_PATH = r"[A-Za-z0-9._/~+@=-]+"
_mount = matching(
    rf"[/~.]{_PATH}(:/{_PATH}(:r[ow])?)?",
    "SOURCE, SOURCE:TARGET or SOURCE:TARGET:ro, paths of letters, digits and . _ / ~ + @ = - only",
)


_option = matching(
    r"--[a-z][a-z-]{0,63}(=[A-Za-z0-9._/:,+@=-]{1,1024})?",
    "--NAME or --NAME=VALUE, one word each, values of letters, digits and . _ / : , + @ = - only",
)


_python = matching(
    r"[A-Za-z0-9/][A-Za-z0-9._/+-]{0,255}",
    "the name or path of an interpreter in the image, such as python3 or /opt/conda/bin/python",
)


ModuleName = Annotated[str, AfterValidator(_module)]
"""A module of Lmod or Environment Modules."""


class ContainerSpec(Section):
    """A container in which the ranks run. The batch script itself stays outside: it asks Slurm."""

    runtime: Literal["apptainer", "singularity", "pyxis"]
    """apptainer or singularity, started by srun on each node; or pyxis, NVIDIA's plugin of srun."""

    image: Annotated[str, AfterValidator(_image)]
    """The image: for apptainer and singularity a .sif file or an unpacked folder, for pyxis a .sqsh file or
    REGISTRY#NAME:TAG. It needs Python with the packages of hpcsft."""

    mounts: list[Annotated[str, AfterValidator(_mount)]] = []
    """Folders that are visible inside besides what the spec names (runs_dir, model, data, prompts, ... are always
    there): SOURCE, SOURCE:TARGET or SOURCE:TARGET:ro."""

    options: list[Annotated[str, AfterValidator(_option)]] = []
    """Further options of the runtime, such as "--rocm" or "--writable-tmpfs"; "--nv" is given where there are GPUs."""

    python: Annotated[str, AfterValidator(_python)] = "python3"
    """The interpreter in the image."""

    @model_validator(mode="after")
    def _fits_the_runtime(self) -> ContainerSpec:
        allowed = PYXIS_OPTIONS if self.runtime == "pyxis" else APPTAINER_OPTIONS
        for option in self.options:
            if option.partition("=")[0] not in allowed:
                raise ValueError(f"options: {option}: with {self.runtime} these may be given: {', '.join(allowed)}")
        if self.runtime != "pyxis" and "://" in self.image:
            raise ValueError(
                f"image: each rank would fetch {self.image} anew; give a file that `{self.runtime} pull` makes"
            )
        return self

    @property
    def image_is_file(self) -> bool:
        """Is the image a file or a folder here, and no address of a registry?"""
        return self.runtime != "pyxis" or self.image.startswith(("/", "~", "."))


class NetworkSpec(Section):
    """The network between the nodes of training."""

    interface: Annotated[str, AfterValidator(_interface)] | None = None
    """Interface that the ranks talk over, such as ib0, on every node alike; they also meet at its address on the first
    node. null leaves the choice to NCCL and gloo."""

    infiniband: bool | None = None
    """May NCCL use InfiniBand verbs? false for fabrics on which it hangs; null leaves it to NCCL."""

    ports: tuple[int, int] = (FIRST_PORT, LAST_PORT)
    """First and last port of those at which the ranks of a job may meet on its first node; each attempt takes another
    one. What firewalls between nodes let through."""

    @field_validator("ports")
    @classmethod
    def _a_range(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 1024 <= value[0] <= value[1] <= 65535:
            raise ValueError("[FIRST, LAST] with 1024 <= FIRST <= LAST <= 65535")
        return value
