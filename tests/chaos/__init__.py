"""Chaos on a real Slurm: one run under a seeded schedule of faults must end exactly as if nothing had happened.

python -m tests.chaos --faults 30 --seed 1        (make chaos FAULTS=30 SEED=1)

scene.py      the model, the data, the spec, the folders; submits
follow.py     reads what the run writes, many times a second: steps done, attempts, what was saved and resumed
watch.py      asks launch/monitor.py all the time, and keeps every answer that is not true
processes.py  the ranks of an attempt
faults.py     what befalls processes, files and the run; cluster_faults.py: what befalls the cluster
schedule.py   seed -> list of faults
harness.py    one fault after the other, and what each of them cost
verdict.py    the table, and the comparison with the undisturbed run
"""
