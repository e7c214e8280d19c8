"""How much memory a process has needed."""

from __future__ import annotations

from pathlib import Path


def peak_resident_bytes(proc: Path = Path("/proc")) -> int:
    """Most memory that this process had resident so far; 0 where the kernel does not tell."""
    for line in (proc / "self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):  # ru_maxrss would count what the process was before its exec, too
            return int(line.split()[1]) * 1024
    return 0


def peak_resident_gb() -> float:
    """The same in 10^9 bytes, as journals tell it."""
    return round(peak_resident_bytes() / 1e9, 3)
