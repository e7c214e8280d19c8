"""A real Slurm on one machine, for the tests that no fake can replace.

minislurm.py  the cluster: `up`, `down`, and helpers that run Slurm's clients on it
settings.py   what its configuration files say and why; its ports
processes.py  which processes belong to a cluster, and how to end all of them
fixture.py    the session fixture `slurm`
install.py    `python -m tests.cluster.install` installs Slurm's programs
__main__.py   `python -m tests.cluster up|down|status|env`: the same cluster, by hand
"""
