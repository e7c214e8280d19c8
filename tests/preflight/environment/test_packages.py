"""What is installed is read from files: here, in a virtual environment, in a conda environment."""

from __future__ import annotations

import sys
from pathlib import Path

from hpcsft.preflight.environment.packages import environment_of
from tests.preflight.made import planned

CUDA_BUILD = """\
from typing import Optional
__version__ = '2.6.0+cu124'
cuda: Optional[str] = '12.4'
hip: Optional[str] = None
"""


def make_environment(prefix: Path, torch: str = CUDA_BUILD, **versions: str) -> Path:
    """Folders as pip leaves them."""
    packages = prefix / "lib" / "python3.12" / "site-packages"
    for name, version in {"torch": "2.6.0", **versions}.items():
        (packages / f"{name}-{version}.dist-info").mkdir(parents=True)
    (packages / "torch").mkdir()
    (packages / "torch" / "version.py").write_text(torch)
    return prefix


def look(**given):
    environment = environment_of(planned(cluster=given)[0])
    assert environment
    return environment


def test_this_environment():
    own = look()
    assert own.prefix == sys.prefix and own.python == "{}.{}.{}".format(*sys.version_info[:3])
    shown = own.shown()
    assert shown["torch"] and shown["deepspeed"] and shown["flash-attn"] is None


def test_a_virtual_environment(tmp_path):
    prefix = make_environment(tmp_path / "venv", nvidia_nccl_cu12="2.21.5", Flash_Attn="2.7.4")
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.12.4\n")
    found = look(venv=str(prefix))
    assert (found.python, found.cuda, found.rocm, found.nccl) == ("3.12.4", "12.4", None, "2.21.5")
    assert found.versions["flash-attn"] == "2.7.4" and not found.torch_is_cpu_build


def test_a_conda_environment_and_other_builds(tmp_path):
    cpu = look(conda=str(make_environment(tmp_path / "a", CUDA_BUILD.replace("'12.4'", "None"))))
    assert cpu.torch_is_cpu_build and cpu.python == "3.12"
    rocm = look(conda=str(make_environment(tmp_path / "b", "cuda = None\nhip: str = '6.2.4'\n")))
    assert rocm.rocm == "6.2.4" and not rocm.torch_is_cpu_build
    unknown = look(conda=str(make_environment(tmp_path / "c", "")))
    assert not unknown.torch_is_cpu_build


def test_a_virtual_environment_that_builds_on_another(tmp_path, monkeypatch):
    make_environment(tmp_path / "base", peft="0.17.0")
    venv = make_environment(tmp_path / "venv", torch="", transformers="5.1.0")
    (venv / "pyvenv.cfg").write_text(f"home = {tmp_path}/base/bin\ninclude-system-site-packages = true\n")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "me/.local/lib/python3.11/site-packages/wandb-0.19.dist-info").mkdir(parents=True)
    found = look(venv=str(venv))
    assert found.versions["peft"] == "0.17.0" and found.versions["transformers"] == "5.1.0"
    assert found.versions["wandb"] == "0.19", "pip install --user"


def test_what_is_not_there_is_empty_and_a_container_is_closed(tmp_path):
    assert look(venv=str(tmp_path / "none")).versions == {}
    assert environment_of(planned(cluster={"container": {"runtime": "pyxis", "image": "a#b:1"}})[0]) is None


def test_packages_of_checkouts_eggs_and_old_installers(tmp_path):
    """`setup.py develop`, `setup.py install`, and distutils leave other names than pip."""
    prefix = make_environment(tmp_path / "venv")
    packages, checkout = prefix / "lib" / "python3.12" / "site-packages", tmp_path / "DeepSpeed"
    (checkout / "deepspeed.egg-info").mkdir(parents=True)
    (checkout / "deepspeed.egg-info" / "PKG-INFO").write_text("Name: deepspeed\nVersion: 0.19.9+abc\n")
    (packages / "flash_attn-2.7.4-py3.12-linux-x86_64.egg").mkdir()
    (packages / "datasets-4.1.0-py3.12.egg-info").touch()
    (packages / "easy-install.pth").write_text(f"{checkout}\nimport sys\n./flash_attn-2.7.4-py3.12-linux-x86_64.egg\n")
    found = look(conda=str(prefix)).versions
    assert (found["deepspeed"], found["flash-attn"], found["datasets"]) == ("0.19.9+abc", "2.7.4", "4.1.0")


def test_the_version_that_virtualenv_writes(tmp_path):
    prefix = make_environment(tmp_path / "venv")
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\nversion_info = 3.11.2.final.0\n")
    assert look(venv=str(prefix)).python == "3.11.2"
