"""Where compilers and loaders keep their caches in a job: on the node, where a home is none of their business.

Triton's cache on a network filesystem is slow and has hung; the others move only when the home takes no files, because
it is full, over its quota, read-only or not there on compute nodes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

ALWAYS = {"TRITON_CACHE_DIR": "triton"}
WITHOUT_HOME = {
    "TORCH_EXTENSIONS_DIR": "torch_extensions",
    "HF_MODULES_CACHE": "huggingface_modules",
    "MPLCONFIGDIR": "matplotlib",
}
"""Variable -> name of the folder."""
PROBE_BYTES = 4096


def use_node_caches(environ: MutableMapping[str, str]) -> None:
    """Name a private folder of this node in `environ` for each cache that nobody has placed.

    Where even that cannot be made, all stays as it is: most stages need none.
    """
    wanted = ALWAYS if takes_files(environ.get("HOME", "")) else {**ALWAYS, **WITHOUT_HOME}
    missing = {name: folder for name, folder in wanted.items() if not environ.get(name)}
    root = Path(environ.get("TMPDIR") or tempfile.gettempdir()) / f"hpcsft-{os.getuid()}"
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        facts = root.lstat()
        if root.is_symlink() or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
            return  # somebody else's: what is compiled is run
        for name, folder in missing.items():
            (root / folder).mkdir(mode=0o700, exist_ok=True)
            environ[name] = str(root / folder)
    except OSError:
        return


def takes_files(folder: str) -> bool:
    """Can a file of some bytes be written into `folder`? A quota shows only then."""
    if not folder or not os.path.isdir(folder):
        return False
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * PROBE_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True
