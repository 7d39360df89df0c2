"""Serve until interrupted: ``python -m tests.provider --latency 1.0`` prints the URL, then one variable a line."""

from __future__ import annotations

import argparse
import signal

from .faults import FAULTS, random_faults
from .server import Provider


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.provider", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--fault-rate", type=float, default=0.0, help="share of the requests that fail at random")
    parser.add_argument("--faults", nargs="*", choices=list(FAULTS), default=list(FAULTS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0, help="of the random faults")
    args = parser.parse_args()
    faults = random_faults(args.fault_rate, seed=args.seed, names=args.faults)
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before the provider's thread starts, which inherits it
    with Provider(latency=args.latency, faults=faults, port=args.port) as provider:
        print(provider.url, flush=True)
        print(*(f"export {name}={value}" for name, value in provider.env.items()), sep="\n", flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
