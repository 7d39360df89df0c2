"""Labels views on a Ray cluster: Ray Data maps over them, with actors that each hold a teacher on one store."""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import re
import socket
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from lvlm2p_wrappers.errors import TeacherError, UsageError
from lvlm2p_wrappers.labels.labelling import Frame, LabelRow, label_views
from lvlm2p_wrappers.redaction import short
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.teacher.counters import Counters

LOCAL = "local"
"""The address that means a cluster of this machine alone, for as long as the command runs."""

_HOST_PORT = re.compile(r"(?:ray://)?([^/:]+):(\d{1,5})")

FRAMES = 20_000
"""Frames that are handed to the cluster at a time; the others wait until these are labelled."""

Outcome: TypeAlias = LabelRow | TeacherError

_CPUS = 0.25  # of an actor: it waits for replies most of the time


class ClusterLabelling:
    """Labels views with actors of a Ray cluster.

    Args:
        address: of the cluster, as ``ray.init`` takes it; ``LOCAL`` begins one here.
        actors: how many there are.

    Raises:
        UsageError: if Ray is not installed, or no cluster answers.
    """

    def __init__(self, address: str, actors: int) -> None:
        self._actors = actors
        self._counters: dict[str, Counters] = {}
        self._ray = _connected(address)

    @property
    def counters(self) -> Counters:
        """What all actors have done so far, as far as they have told."""
        told = [vars(counters) for counters in self._counters.values()]
        return Counters(**{name: sum(each[name] for each in told) for name in vars(Counters())})

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        self._ray.shutdown()

    def label_views(self, teacher: Teacher, frames: Iterable[Frame], *, width: int) -> Iterator[Outcome]:
        """As :func:`~lvlm2p_wrappers.labels.labelling.label_views`, by all actors, in no order.

        Args:
            teacher: each actor has one with the same arguments.
            frames: what they are asked about.
            width: how many views an actor asks about ahead of the row that comes next.

        Raises:
            TeacherError: if an actor's teacher raises it.
        """
        data, coming = self._ray.data, iter(frames)
        while part := [{"asked": pickle.dumps((teacher, width, frame))} for frame in itertools.islice(coming, FRAMES)]:
            # Small batches share the work out evenly; an actor has two at a time, so that it never runs dry.
            size = max(1, min(width, -(-len(part) // (4 * self._actors))))
            asked = data.from_items(part, override_num_blocks=-(-len(part) // size))
            actors = data.ActorPoolStrategy(size=self._actors, max_concurrent_calls_per_actor=2)
            told = asked.map_batches(_Actor, compute=actors, batch_size=size, num_cpus=_CPUS)
            for row in told.iter_rows():
                name, counters, outcomes, error = pickle.loads(row["told"])
                self._counters[name] = counters
                yield from outcomes
                if error is not None:
                    raise error


class _Actor:
    """Runs in a process of the cluster. It is begun again where that dies: what was answered is in the store."""

    def __init__(self) -> None:
        self._name = uuid.uuid4().hex

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        asked = [pickle.loads(each) for each in batch["asked"]]
        teacher, width, _ = asked[0]  # the same for all: a pickled teacher is its process's own
        outcomes, error = list[Outcome](), None
        try:
            outcomes.extend(label_views(teacher, [frame for _, _, frame in asked], width=width))
        except TeacherError as raised:
            error = raised
        return {"told": [pickle.dumps((self._name, teacher.counters, outcomes, error))]}


def _connected(address: str) -> Any:
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_BACKEND_LOG_LEVEL", "fatal")):
        os.environ.setdefault(name, value)  # Ray would tell its makers, and whoever reads standard error
    try:
        import ray
        import ray.data
    except ImportError:
        raise UsageError("--ray needs Ray: pip install 'lvlm2p[labels,ray]'") from None
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:  # as its address, so that no cluster counts that somebody has begun here
        options["include_dashboard"] = False
    try:
        if found := _HOST_PORT.fullmatch(address):  # Ray itself would wait for minutes
            socket.create_connection((found[1], int(found[2])), timeout=10).close()
        ray.init(address=address, **options)
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        raise UsageError(
            f"no Ray cluster answers at {address}: {short(str(error))}. Begin one with `ray start --head`, "
            f"or give --ray without an address for one on this machine"
        ) from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    return ray
