"""The API of the cluster's first member: `python -m provd.simulator.rack.member CLUSTER_DIRECTORY`."""

import sys
from contextlib import suppress
from pathlib import Path

import trio

from provd.simulator.cluster.api import serve_api
from provd.simulator.cluster.cluster import Cluster

if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        trio.run(serve_api, Cluster.open(Path(sys.argv[1])), "pve1")
