"""Every test runs with the network shut, without keys, and writes under a temporary folder only."""

import os
import socket

import pytest

from lvlm2p_wrappers import Teacher
from tests.postgres import PostgresServer
from tests.provider import Provider

# As the package sets them before it imports LiteLLM; some tests import it first.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"
os.environ["LITELLM_MODE"] = "PRODUCTION"
os.environ.setdefault("OMP_NUM_THREADS", "1")

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_connect = socket.socket.connect


def _connect_to_loopback_only(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in _LOOPBACK:
        raise AssertionError(f"a test tried to reach the network: {address}")
    return _connect(self, address)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    """Shut the network, hide the user's keys, and keep the store and the working folder of a test to itself."""
    monkeypatch.setattr(socket.socket, "connect", _connect_to_loopback_only)
    for name in list(os.environ):
        if name.endswith("_API_KEY") or name.endswith("_API_BASE"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)  # parallel test runners set it, and tables would be as narrow
    monkeypatch.setenv("LVLM2P_STORE", str(tmp_path / "store.sqlite"))
    monkeypatch.chdir(tmp_path)
    yield
    for teacher in Teacher._shared.values():  # a question left open would be asked again of the next test's provider
        teacher.drain()
    Teacher._shared.clear()


@pytest.fixture
def provider(monkeypatch):
    """A loopback provider of five wire formats, to which LiteLLM is pointed."""
    with Provider() as provider:
        for name, value in provider.env.items():
            monkeypatch.setenv(name, value)
        yield provider


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL server; where there is none, the tests that need one are skipped."""
    with PostgresServer() as server:
        yield server
