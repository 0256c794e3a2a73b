"""`python -m provd.simulator`: a homelab on one computer, for people. See `lab`."""

import argparse
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import trio

from provd.simulator import lab
from provd.simulator.cluster.cluster import Cluster


def main() -> int:
    """Exit code 2 for a directory that does not fit the command."""
    parser = argparse.ArgumentParser(prog="python -m provd.simulator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="write a lab and a daemon's configuration for it")
    prepare.add_argument("directory", type=Path)
    prepare.add_argument("--port", type=int, required=True, help="the daemon's port on 127.0.0.1")
    run = commands.add_parser("run", help="bring a lab to life, until interrupted")
    run.add_argument("directory", type=Path)
    run.add_argument("--pace", type=float, default=1.2, help="length of a visible moment in seconds")
    run.add_argument("--look-every", type=float, default=1.0, help="seconds between two looks at the daemon")
    arguments = parser.parse_args()
    try:
        if arguments.command == "prepare":
            made = lab.prepare(arguments.directory, port=arguments.port)
            lab.add_life(Cluster.open(made.cluster_dir))
            print(f"the lab is ready; the daemon's configuration is {made.configuration}")
        else:
            trio.run(_run, lab.Lab.open(arguments.directory), arguments.pace, arguments.look_every)
    except (FileExistsError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


async def _run(made: lab.Lab, pace: float, look_every: float) -> None:
    """Until SIGINT or SIGTERM, which end every machine with all its processes."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            token = os.environ.get("PROVD_API_TOKEN")
            run = partial(lab.run, made, token=token, pace=pace, look_every=look_every, say=_say)
            await nursery.start(run)
            _say(f"the lab runs; waiting for the daemon at {made.public_url}")
            async for number in signals:
                nursery.cancel_scope.cancel(reason=signal.Signals(number).name)
                break
    _say("the lab is off")


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
