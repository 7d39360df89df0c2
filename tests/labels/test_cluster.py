"""``lvlm2p label --ray``: a cluster labels, its actors share one store, and one that is killed loses nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lvlm2p_wrappers import read_labels
from lvlm2p_wrappers.cli import main

pytest.importorskip("pyarrow", reason="label sets need the extra `labels`")

LAVA = "MiniGrid-LavaGapS5-v0"
GPT = "openai/gpt-4o-mini"
STORE = "ray.sqlite"


def started(provider, *args):
    """``lvlm2p label --ray`` in a process of its own, which this test's shut network does not hold."""
    code = "import sys; from lvlm2p_wrappers.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["label", LAVA, "--model", GPT, "--out", "labels", "--store", STORE, *map(str, args), "--json", "--ray"]
    environment = os.environ | provider.env | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", code, *words], env=environment, stdout=subprocess.PIPE, text=True)


def actors_of(process):
    """The actors that a command has begun: descendants of its process by that name."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
    return [pid for pid in parents if "MapWorker" in names.get(pid, "") and process.pid in ancestors(pid, parents)]


def ancestors(pid, parents):
    while pid in parents:
        pid = parents[pid]
        yield pid


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_an_actor_that_is_killed_loses_no_answer_and_each_answer_is_paid_for_once(provider):
    pytest.importorskip("ray", reason="it needs the extra `ray`")
    provider.latency = 0.5
    with started(provider, "--states", 40, "--actors", 2, "--concurrency", 2) as command:
        while sum(exchange.status == 200 for exchange in provider.log) < 20:
            assert command.poll() is None
            time.sleep(0.1)
        victim = actors_of(command)[0]
        under_way = provider.in_flight
        os.kill(victim, signal.SIGKILL)
        told = json.loads(command.communicate(timeout=300)[0])
    assert (told["labels"], told["complete"]) == (40, True)
    assert len(read_labels("labels")) == 40
    asked = [(exchange.seen.digest, exchange.seen.asks_for_an_action) for exchange in provider.log]
    assert len(set(asked)) == 80
    assert len(asked) - 80 <= under_way <= 4  # what the killed one had sent is asked again, and nothing else
    assert len({exchange.seen.digest for exchange in provider.log}) == 40
    assert main(["label", LAVA, "--model", GPT, "--states", "40", "--out", "again", "--store", STORE]) == 0
    assert len(provider.log) == len(asked)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_a_cluster_that_does_not_answer_is_told_and_nothing_is_asked(capsys, provider, address):
    pytest.importorskip("ray", reason="it needs the extra `ray`")
    assert main(["label", LAVA, "--model", GPT, "--states", "2", "--ray", address]) == 2
    assert f"no Ray cluster answers at {address}" in capsys.readouterr().err
    assert not provider.log


def test_batches_and_a_cluster_exclude_each_other(capsys, provider):
    assert main(["label", LAVA, "--model", GPT, "--ray", "--batch"]) == 2
    assert "leave out --ray" in capsys.readouterr().err
    assert not provider.log


def test_without_ray_a_message_names_the_extra(monkeypatch, capsys, provider):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["label", LAVA, "--model", GPT, "--states", "2", "--ray"]) == 2
    assert "pip install 'lvlm2p[labels,ray]'" in capsys.readouterr().err
    assert not provider.log
