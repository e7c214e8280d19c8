"""The models and data sets of the hub that a spec names, brought to where jobs find them.

    locate(spec)            what commands look at before anything is submitted: no weights are fetched
    keep_inputs(spec, run)  what a submission does: everything is fetched, and written down in the run directory

A run stays with the commits that it was submitted with, wherever a branch has moved to since.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from hpcsft.errors import InputError
from hpcsft.hub.caches import datasets_cache, hub_cache, is_node_local
from hpcsft.hub.client import Listing, download, list_model, look_at_data
from hpcsft.hub.fetched import Fetched, FetchedData, FetchedModel, data_names, local_spec, model_names, read_fetched
from hpcsft.hub.files import total_bytes
from hpcsft.hub.outline import outline
from hpcsft.records import write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec

CACHES = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME")
"""Variables that a spec may set for its jobs, and that count here too."""

DATA_MODULE = "hpcsft.data.hub_download"

Say = Callable[[str], None]


def say_aside(text: str) -> None:
    """One line on the standard error: the standard output may be a JSON document."""
    print(text, file=sys.stderr, flush=True)


def locate(spec: ExperimentSpec, data: bool = False, say: Say = say_aside) -> ExperimentSpec:
    """`spec` with folders in the place of models of the hub, to be read from; with `data` data sets are fetched too.

    A model that is not here is an outline of itself, in a folder that goes with this process. The spec as it was given
    names the run. InputError if the hub gives something not, and the cache does neither.
    """
    models, data_sets = model_names(spec), data_names(spec)
    if not models and not data_sets:
        return spec
    environment = cache_environment(spec, os.environ)
    known = read_fetched(RunDir(spec.run_path))
    _warn_of_place(spec, environment, say)
    if not data:
        _look_at_data(data_sets, known, say)
    return local_spec(
        spec,
        Fetched(
            models={name: _look(name, where, environment, known, say) for name, where in models.items()},
            data=fetch_data(data_sets, environment, known, spec.data.format, say) if data else known.data,
        ),
    )


def fetch_inputs(spec: ExperimentSpec, say: Say = say_aside) -> Fetched:
    """Fetch everything of the hub that `spec` names; what is here already takes no network.

    InputError if the hub gives something not, and the cache does neither.
    """
    models, data_sets = model_names(spec), data_names(spec)
    if not models and not data_sets:
        return Fetched()
    environment = cache_environment(spec, os.environ)
    known = read_fetched(RunDir(spec.run_path))
    return Fetched(
        models={name: _fetch_model(name, where, environment, known, say) for name, where in models.items()},
        data=fetch_data(data_sets, environment, known, spec.data.format, say),
    )


def keep_inputs(spec: ExperimentSpec, run: RunDir, say: Say = say_aside) -> None:
    """Fetch what `spec` names and write it down in the run directory; what is gone from the caches comes again."""
    write_fetched(run, fetch_inputs(spec, say))


def write_fetched(run: RunDir, fetched: Fetched) -> None:
    """Write down in the run directory what was fetched, if there is anything."""
    if fetched.models or fetched.data:
        write_json(run.fetched, fetched)


def cache_environment(spec: ExperimentSpec, environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with the caches that `spec` names for its jobs."""
    return {**environment, **{name: value for name, value in spec.cluster.env.items() if name in CACHES}}


def _warn_of_place(spec: ExperimentSpec, environment: Mapping[str, str], say: Say) -> None:
    """Compute nodes have to find what is fetched here."""
    if spec.cluster.kind == "local" or shutil.which("sbatch") is None:
        return
    for place in (hub_cache(environment), datasets_cache(environment)):
        if is_node_local(place, environment):
            say(
                f"warning: {place} is a folder that each node has for itself: export HF_HOME=... on a shared filesystem"
            )
            return


def _look_at_data(names: Mapping[str, str], known: Fetched, say: Say) -> None:
    """Does the hub have the data sets that are not here yet? If it is silent, the submission will tell."""
    for name, where in names.items():
        if name not in known.data and (found := look_at_data(name, where)):
            say(f"{name}: at {found[0][:12]}, {_gb(found[1])} of files, fetched and prepared at submission")


def _look(name: str, where: str, environment: Mapping[str, str], known: Fetched, say: Say) -> FetchedModel:
    before = known.models.get(name)
    if before and before.is_whole():
        return before
    cache = hub_cache(environment)
    listing = list_model(name, where, cache, before.revision if before else None)
    missing = listing.missing(list(listing.sizes))
    if listing.silence:
        say(_where_it_is(name, listing.commit, listing.size_bytes, str(listing.folder), listing.silence))
    if not missing:
        return _as_record(listing)
    amount = f"{_gb(listing.size_bytes)} in {len(listing.sizes)} files"
    say(f"{name}: at {listing.commit[:12]}, {amount}, {_gb(total_bytes(listing.sizes, missing))} not in {cache} yet")
    download(name, where, listing, [file for file in listing.sizes if file not in listing.weights], cache)
    return FetchedModel(revision=listing.commit, folder=str(outline(name, where, listing)), files=listing.sizes)


def _fetch_model(name: str, where: str, environment: Mapping[str, str], known: Fetched, say: Say) -> FetchedModel:
    before = known.models.get(name)
    if before and before.is_whole():
        return before
    cache = hub_cache(environment)
    listing = list_model(name, where, cache, before.revision if before else None)
    if missing := listing.missing(list(listing.sizes)):
        say(f"{name}: fetching {_gb(total_bytes(listing.sizes, missing))} into {cache}")
        download(name, where, listing, list(listing.sizes), cache)
    say(_where_it_is(name, listing.commit, listing.size_bytes, str(listing.folder), listing.silence))
    return _as_record(listing)


def _as_record(listing: Listing) -> FetchedModel:
    return FetchedModel(revision=listing.commit, folder=str(listing.folder), files=listing.sizes)


def fetch_data(
    names: Mapping[str, str], environment: Mapping[str, str], known: Fetched, format: str, say: Say
) -> dict[str, FetchedData]:
    """The data sets `names` (with the fields that name them) in the cache of `datasets`, in a process of their own.

    InputError if one cannot be had, or if its rows are no conversations in `format`.
    """
    found = {name: known.data[name] for name in names if name in known.data and known.data[name].is_whole()}
    wanted = [
        {"name": name, "where": where, "commit": known.data[name].revision if name in known.data else None}
        for name, where in names.items()
        if name not in found
    ]
    if not wanted:
        return found
    cache = datasets_cache(environment)
    say(f"fetching and preparing {', '.join(str(item['name']) for item in wanted)} in {cache}")
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-m", DATA_MODULE],
        input=json.dumps({"wanted": wanted, "format": format}),
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**environment, "HF_HUB_CACHE": str(hub_cache(environment)), "HF_DATASETS_CACHE": str(cache)},
        check=False,
    )
    if done.returncode:
        message = f"{wanted[0]['where']}: the data sets cannot be fetched: the process ended with {done.returncode}"
        raise InputError(message, "its last words stand above")
    for name, answer in json.loads(done.stdout.splitlines()[-1]).items():
        if "error" in answer:
            raise InputError(answer["error"], answer["hint"])
        found[name] = FetchedData.model_validate(answer)
        say(_where_it_is(name, found[name].revision, found[name].size_bytes, found[name].folder, answer["silence"]))
    return found


def _where_it_is(name: str, commit: str, size_bytes: int, folder: str, silence: str | None) -> str:
    why = f" ({silence}, and this is what the cache holds)" if silence else ""
    return f"{name}: at {commit[:12]}, {_gb(size_bytes)} in {folder}{why}"


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:,.2f} GB" if size_bytes >= 5e6 else f"{size_bytes / 1e6:,.2f} MB"
