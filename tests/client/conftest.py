import pytest

from tests.provider import Provider


@pytest.fixture
def provider(monkeypatch):
    """The loopback provider, and clients that lose no time between attempts."""
    monkeypatch.setattr("lvlm2p_wrappers.client.provider_errors.FIRST_PAUSE_S", 0.02)
    with Provider(drip=0.2) as provider:
        for name, value in provider.env.items():
            monkeypatch.setenv(name, value)
        yield provider
