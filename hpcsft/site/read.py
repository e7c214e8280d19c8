"""Ask Slurm what this cluster is."""

from __future__ import annotations

import grp
import os
import pwd
from concurrent.futures import ThreadPoolExecutor

from hpcsft.errors import ClusterError
from hpcsft.site.accounts import ASSOCIATION_FIELDS, QOS_FIELDS, parse_accounts
from hpcsft.site.nodes import parse_nodes
from hpcsft.site.parse import enforced, keeps_accounts, parse_config, parse_partitions, settings
from hpcsft.site.records import Accounts, Site
from hpcsft.slurm_client import run_client

NO_ACCOUNTS = "this cluster keeps no accounts"
PRIVATE = ("Access/permission denied",)
"""What scontrol and sinfo say where a site keeps its nodes or partitions to itself (PrivateData)."""
ACCOUNTS_TIMEOUT_S = 10
"""What a submission waits for a database that hangs: it can do without."""


def read_site() -> Site:
    """The cluster as this user sees it. ClusterError if its controller does not answer; accounts may be missing."""
    config = settings(run_client("scontrol", "show", "config"))
    user = _name_of_user()
    site = parse_config(config, user, _groups())
    with ThreadPoolExecutor(5) as pool:
        partitions = pool.submit(run_client, "scontrol", "show", "partition", "-o", "-a", ignore=PRIVATE)
        nodes = pool.submit(run_client, "scontrol", "show", "node", "-o", "-a", ignore=PRIVATE)
        asked = _ask_accounts(pool, site.name, user, enforced(config)) if keeps_accounts(config) else NO_ACCOUNTS
        found = parse_partitions(partitions.result(), parse_nodes(nodes.result()), site.preempt_mode)
    known = {"accounts_problem": asked} if isinstance(asked, str) else {"accounts": asked}
    return site.model_copy(update={"partitions": found, **known})


def _ask_accounts(pool: ThreadPoolExecutor, cluster: str, user: str, enforced: list[str]) -> Accounts | str:
    """The accounts, or why they do not answer."""

    def ask(*words: str) -> str:
        return run_client("sacctmgr", "-nP", "show", *words, timeout_s=ACCOUNTS_TIMEOUT_S)

    associations = pool.submit(ask, "assoc", f"user={user}", f"format={ASSOCIATION_FIELDS}")
    default = pool.submit(ask, "user", user, "format=DefaultAccount")
    qos = pool.submit(ask, "qos", f"format={QOS_FIELDS}")
    try:
        return parse_accounts(cluster, associations.result(), default.result(), qos.result(), enforced)
    except ClusterError as error:
        return error.message


def _name_of_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container without the site's directory of users
        return str(os.getuid())


def _groups() -> list[str]:
    """Names of the user's Unix groups; a group without a name is left out."""
    found = []
    for number in {os.getgid(), *os.getgroups()}:
        try:
            found.append(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return sorted(found)
