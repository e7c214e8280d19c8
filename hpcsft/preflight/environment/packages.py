"""What is installed in the Python environment that jobs use, read from its files: nothing of it is imported or run."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from hpcsft.records import Record
from hpcsft.spec import ExperimentSpec

SHOWN = ("torch", "transformers", "deepspeed", "accelerate", "datasets", "flash-attn", "peft", "lm-eval", "submitit")
"""Packages whose versions are always told; None where one is missing."""
PACKAGE = re.compile(r"([\w.]+)-([^-]+)(?:-py[\d.]+(?:-[\w.-]+)?)?\.(?:dist-info|egg-info|egg)")
"""What pip, setuptools and distutils call the folder, or file, of a package's metadata."""
NCCL = re.compile(r"nvidia[-_.]nccl[-_.]cu\d+", re.IGNORECASE)


class Environment(Record):
    """A Python environment."""

    prefix: str
    python: str | None
    """Such as 3.11.2."""
    versions: dict[str, str]
    """Name of a package, in lower case with dashes -> version."""
    cuda: str | None = None
    """The CUDA that torch was built for; None for another build, or where nobody tells."""
    rocm: str | None = None
    torch_is_cpu_build: bool = False

    @property
    def nccl(self) -> str | None:
        """The version of NCCL that came with torch."""
        return next((version for name, version in self.versions.items() if NCCL.fullmatch(name)), None)

    def shown(self) -> dict[str, str | None]:
        """Versions for display."""
        packages = {name: self.versions.get(name) for name in SHOWN}
        return {"python": self.python, **packages, "cuda": self.cuda, "rocm": self.rocm, "nccl": self.nccl}


def environment_of(spec: ExperimentSpec) -> Environment | None:
    """The environment in which the stages run; None for a container, into which nobody can look from here."""
    if spec.cluster.container:
        return None
    prefix = spec.cluster.venv or spec.cluster.conda
    return _own() if prefix is None else _at(Path(prefix))


def _own() -> Environment:
    """That of this very Python."""
    folders = [folder for folder in sys.path if os.path.isdir(folder)]
    return _look(sys.prefix, platform.python_version(), folders)


def _at(prefix: Path) -> Environment:
    """That of a virtual or conda environment."""
    settings = _settings(prefix / "pyvenv.cfg")
    homes = [prefix]
    if settings.get("include-system-site-packages") == "true" and "home" in settings:
        system = Path(settings["home"]).parent
        homes += [system, *([Path("/usr/local")] if system == Path("/usr") else []), Path("~/.local").expanduser()]
    folders = [folder for home in homes for folder in sorted(home.glob("lib*/python3*/*-packages"))]
    version = settings.get("version") or settings.get("version_info") or _folder_version(folders)
    version = ".".join(version.split(".")[:3]) if version else None  # virtualenv writes 3.11.2.final.0
    return _look(str(prefix), version, [path for folder in folders for path in (str(folder), *_added(folder))])


def _added(folder: Path) -> Iterator[str]:
    """Folders that .pth files add: packages that are installed from a checkout, and eggs."""
    for file in sorted(folder.glob("*.pth")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in file.read_text(encoding="utf-8").splitlines():
                if line.strip() and not line.startswith(("#", "import ", "import\t")):
                    path = folder / line.strip()
                    if path.is_dir():
                        yield str(path)


def _settings(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def _folder_version(folders: list[Path]) -> str | None:
    found = [match[1] for folder in folders if (match := re.search(r"python(3\.\d+)/", f"{folder}/"))]
    return found[0] if found else None


def _look(prefix: str, python: str | None, folders: list[str]) -> Environment:
    versions: dict[str, str] = {}
    for folder in folders:
        for name, version in _installed(folder):
            versions.setdefault(name, version)
    torch = next((file for folder in folders if (file := Path(folder, "torch", "version.py")).is_file()), None)
    cuda, rocm, known = _torch_build(torch)
    return Environment(
        prefix=prefix,
        python=python,
        versions=versions,
        cuda=cuda,
        rocm=rocm,
        torch_is_cpu_build=known and not cuda and not rocm,
    )


def _installed(folder: str) -> Iterator[tuple[str, str]]:
    """By the names of the folders NAME-VERSION.dist-info, which is quicker than to read what is in them."""
    if folder.endswith(".egg") and (found := PACKAGE.fullmatch(os.path.basename(folder))):
        yield _canonical(found[1]), found[2]
    try:
        names = os.listdir(folder)
    except OSError:  # on sys.path, and not ours to read
        return
    for name in names:
        if found := PACKAGE.fullmatch(name):
            yield _canonical(found[1]), found[2]
        elif found := re.fullmatch(r"([\w.]+)\.egg-info", name):  # left by `setup.py develop` in a checkout
            yield _canonical(found[1]), _told_version(Path(folder, name, "PKG-INFO"))


def _canonical(name: str) -> str:
    return re.sub(r"[_.]+", "-", name).lower()


def _told_version(file: Path) -> str:
    """The Version in the metadata of a package; `unknown` if nobody tells."""
    try:
        found = re.search(r"^Version: (\S+)", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else "unknown"


def _torch_build(file: Path | None) -> tuple[str | None, str | None, bool]:
    """CUDA and ROCm versions of torch/version.py, and whether it could be read."""
    try:
        text = file.read_text(encoding="utf-8") if file else ""
    except (OSError, UnicodeDecodeError):
        text = ""
    found = {name: value for name, value in re.findall(r"^(cuda|hip)\b.*?=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)}
    return found.get("cuda"), found.get("hip"), bool(re.search(r"^cuda\b.*=", text, re.MULTILINE))
