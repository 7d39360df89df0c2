"""A key goes to its provider's host and nowhere else: not by redirect, fallback or proxy, nor into anything written."""

import asyncio
import base64
import contextlib
import json
import logging
import re
import socket
import threading
from dataclasses import replace

import gymnasium as gym
import httpx
import pytest
from aiohttp import web

from lvlm2p_wrappers import ModelError, Teacher, TransportError, VectorTeacherWrapper
from lvlm2p_wrappers.cli.main import main
from lvlm2p_wrappers.client import Budget, submit
from lvlm2p_wrappers.client.http_guard import MOST_BYTES, guarded
from lvlm2p_wrappers.client.litellm_loader import load_litellm
from lvlm2p_wrappers.client.provider_errors import GuardError
from lvlm2p_wrappers.store import Store, calls
from tests.client.asking import client, ignore, request_of, views
from tests.provider import FAULTS, WIRES, Provider
from tests.provider.answers import fitting_answer
from tests.provider.conversation import Refused

REDIRECTS = [301, 302, 303, 307, 308]


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("wire", WIRES)
def test_a_redirect_is_refused_and_neither_key_nor_picture_arrives_elsewhere(provider, wire, status):
    """Redirected to another host, Gemini's and Anthropic's keys and the picture arrived there."""
    elsewhere = replace(FAULTS["redirect"], refused=Refused(status, "Elsewhere"))
    provider.faults = lambda _: elsewhere
    with pytest.raises(
        TransportError, match=rf"HTTP {status}: it redirects to 'http://localhost:.*give it as api_base"
    ):
        Teacher(WIRES[wire].model, store=None).advise(next(views(1)))
    assert provider.strays == []
    assert len(provider.log) == 1


def test_an_address_of_ones_own_belongs_to_the_model_it_was_given_for(provider):
    """The keys of paid fallback models went in clear to the local server that `api_base` named."""
    with Provider() as local:
        local.faults = lambda _: FAULTS["400"]
        teacher = Teacher(
            "hosted_vllm/my-model",
            store=None,
            api_base=local.url + "/vllm/v1",
            fallback_models=[WIRES[wire].model for wire in ("openai", "gemini", "anthropic")],
        )
        provider.faults = lambda seen: FAULTS["400"] if seen.provider != "anthropic" else None
        assert teacher.advise(next(views(1))).model == WIRES["anthropic"].model
        assert {each.seen.provider for each in local.log} == {"vllm"}
        assert local.strays == []
    assert {each.seen.provider for each in provider.log} == {"openai", "gemini", "anthropic"}


SPEAKS_OPENAIS_FORMAT = ["deepinfra", "cerebras", "dashscope", "perplexity", "nvidia_nim"]


@pytest.mark.parametrize("name", SPEAKS_OPENAIS_FORMAT)
def test_openais_key_goes_to_no_other_provider_whose_own_key_is_missing(provider, monkeypatch, name):
    """LiteLLM sent OpenAI's key to some sixty providers, where their own was not in the environment."""
    model, address = f"{name}/gpt-4o-mini", provider.url + WIRES["openai"].base
    with pytest.raises(ModelError) as told:
        Teacher(model, store=None, api_base=address).advise(next(views(1)))
    assert (provider.log, provider.strays) == ([], [])
    said = re.fullmatch(
        rf"{model}: .* the key in OPENAI_API_KEY to 127.0.0.1: set (\w+_API_KEY), or unset OPENAI_API_KEY",
        str(told.value),
    )
    monkeypatch.setenv(said[1], "key-of-another-provider")
    with pytest.raises(ModelError, match="refused the key"):  # the loopback provider knows OpenAI's alone
        Teacher(model, store=None, api_base=address).advise(next(views(1)))
    assert {each.seen.key for each in provider.log} == {"key-of-another-provider"}


def test_a_key_that_two_variables_hold_goes_to_either_provider(provider, monkeypatch):
    monkeypatch.setenv("DEEPINFRA_API_KEY", WIRES["openai"].key)
    asked = Teacher("deepinfra/gpt-4o-mini", store=None, api_base=provider.url + WIRES["openai"].base)
    assert asked.advise(next(views(1))).probs is not None


def test_a_client_that_no_guard_holds_sends_nothing(provider):
    """`aiohttp_openai/...` followed redirects, and the picture arrived elsewhere."""
    address = f"{provider.url}{WIRES['openai'].base}/chat/completions"
    with pytest.raises(ModelError, match="would follow redirects; write openai/gpt-4o-mini"):
        Teacher("aiohttp_openai/gpt-4o-mini", store=None, api_base=address).advise(next(views(1)))
    assert (provider.log, provider.strays) == ([], [])


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("wire", ["openai", "gemini", "anthropic"])
def test_a_key_in_the_place_of_a_count_is_in_no_warning(provider, monkeypatch, recwarn, caplog, wire, status):
    """A provider that put the key where a number belongs had it printed, in a warning of the library that reads it."""
    tell = type(WIRES[wire]).write

    def write(self, seen, outcome):
        reply = tell(self, seen, outcome)
        name = next(name for name in reply if name.startswith("usage"))
        return reply | {name: dict.fromkeys(reply[name], seen.key) if status == 200 else seen.key}

    monkeypatch.setattr(type(WIRES[wire]), "write", write)
    load_litellm.cache_clear()  # it says what is not to be warned of, and pytest has begun anew since
    with contextlib.suppress(TransportError):
        Teacher(WIRES[wire].model, store=None, max_retries=0).advise(next(views(1)))
    assert provider.log
    assert WIRES[wire].key not in caplog.text + "".join(str(each.message) for each in recwarn)


@pytest.mark.parametrize("name", ["lm_studio", "xinference", "litellm_proxy"])
def test_the_picture_for_a_server_without_address_does_not_go_to_openai(provider, monkeypatch, name):
    """LiteLLM took OpenAI's address for a server of one's own that no variable names."""
    monkeypatch.delenv("OPENAI_API_BASE")
    with pytest.raises(ModelError, match=f"would ask OpenAI: set {name.upper()}_API_BASE"):
        Teacher(f"{name}/my-model", store=None, max_retries=0).advise(next(views(1)))
    assert (provider.log, provider.strays) == ([], [])


def test_a_call_that_is_kept_back_costs_nothing_of_the_budget(provider):
    budget = Budget(usd=1.0, calls=9)
    bases = {"deepinfra/meta-llama/Llama-3.2-11B-Vision-Instruct": provider.url + WIRES["openai"].base}
    asked = client(budget=budget, api_bases=bases)
    (model,) = bases
    assert isinstance(submit(asked.ask(request_of(next(views(1)), model), ignore)).exception(), ModelError)
    assert (budget.spent_usd, budget.reserved_usd) == (0, 0)


def test_ollama_is_asked_for_replies_alone(monkeypatch):
    """LiteLLM asked it about the model, too, with a client that went wherever it was sent and read without end."""

    async def redirect(request):
        asked.append(request.path)
        raise web.HTTPTemporaryRedirect(f"http://localhost:{request.url.port}/elsewhere")

    asked = []
    monkeypatch.setattr("tests.provider.server._show_model", redirect)
    with Provider() as provider:
        monkeypatch.setenv("OLLAMA_API_BASE", provider.url + WIRES["ollama"].base)
        assert Teacher("ollama_chat/of-this-test", store=None).advise(next(views(1))).probs is not None
        assert len(provider.log) == 2
        assert (asked, provider.strays) == ([], [])


@pytest.mark.parametrize(
    "begins", [b"HTTP/1.1 307 Elsewhere\r\nLocation: http://localhost:9/\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]
)
def test_a_client_that_is_not_asynchronous_is_guarded_as_well(begins):
    """Some of LiteLLM's providers have no other, and theirs followed redirects and read replies without end."""
    server, sent = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(2**16)
            connection.sendall(begins)
            while b" 200 " in begins and sum(sent) < 4 * MOST_BYTES:
                connection.sendall(bytes(2**20))
                sent.append(2**20)

    threading.Thread(target=serve, daemon=True).start()
    with httpx.Client(follow_redirects=True) as client, pytest.raises(GuardError), guarded(lambda _: None):
        client.get(f"http://127.0.0.1:{server.getsockname()[1]}/")
    server.close()
    assert sum(sent) < 2 * MOST_BYTES


class Proxy:
    """An HTTP proxy that notes the first bytes of each connection, and connects to nobody."""

    def __init__(self):
        self.heard = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(0.5)
                heard = connection.recv(2**16)
                if heard.startswith(b"CONNECT"):
                    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    with contextlib.suppress(TimeoutError):
                        heard += connection.recv(2**16)
                self.heard.append(heard)

    def close(self):
        self._socket.close()


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY", "http_proxy"])
@pytest.mark.usefixtures("provider")
def test_a_proxy_of_the_environment_hears_no_key_of_an_https_provider(monkeypatch, wire, variable):
    proxy = Proxy()
    for name in ("NO_PROXY", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, proxy.url)
    base = f"https://{wire}.{variable}.invalid{WIRES[wire].base}"  # LiteLLM remembers each host's proxy
    with pytest.raises(TransportError):
        Teacher(WIRES[wire].model, store=None, api_base=base, max_retries=0, timeout_s=5).advise(next(views(1)))
    proxy.close()
    said = b"".join(proxy.heard)
    assert (variable == "http_proxy") == (said == b"")
    assert b"".join(each[:7] for each in proxy.heard) in (b"", b"CONNECT")
    key = WIRES[wire].key.encode() or b"no key"
    assert key not in said
    assert base64.b64encode(key)[:10] not in said


@pytest.mark.parametrize("wire", ["openai", "gemini", "anthropic", "vllm"])
def test_a_key_that_a_provider_gives_as_its_models_name_is_in_no_advice(provider, wire):
    provider.faults = lambda _: FAULTS["key_as_model"]
    model = Teacher(WIRES[wire].model, store=None).advise(next(views(1))).model
    assert "/models/<" in model
    assert WIRES[wire].key not in model


@pytest.mark.parametrize("wire", ["openai", "gemini", "anthropic", "vllm"])
def test_no_key_is_in_anything_that_a_run_writes_in_whatever_spelling(
    provider, monkeypatch, tmp_path, capsys, caplog, wire
):
    """A key that the provider gave as its model's name, or wrote with `\\/`, was in answers, export and pages."""
    caplog.set_level(logging.DEBUG, logger="lvlm2p_wrappers")
    key = "sk/" + WIRES[wire].key + "+=="
    variable = {"vllm": "HOSTED_VLLM"}.get(wire, wire.upper()) + "_API_KEY"
    monkeypatch.setattr(type(WIRES[wire]), "key", key)
    monkeypatch.setenv(variable, key)
    basic = base64.b64encode(f"user:{key}".encode()).decode()
    escaped = "".join(f"\\u{ord(c):04x}" for c in key)
    spellings = [key, key.replace("/", "\\/"), basic[8:-4], escaped]

    def answer(seen):
        reply = json.loads(fitting_answer(seen))
        reply["reasoning" if seen.asks_for_an_action else "summary"] = f"{key} {basic} @"
        return json.dumps(reply).replace("/", "\\/").replace("@", escaped)

    provider.answer = answer
    provider.faults = [FAULTS["401_echoing_key"], *[FAULTS["key_as_model"]] * 3, FAULTS["malformed_json"]]
    envs = gym.make_vec("MiniGrid-LavaGapS5-v0", num_envs=2, vectorization_mode="sync")
    options = {"on_error": "skip", "concurrency": 1, "prompts": "minigrid-0.1"}  # whose analysis has a text
    with pytest.raises(ModelError):
        VectorTeacherWrapper(envs, WIRES[wire].model, **options).reset(seed=0)
    envs = gym.make_vec("MiniGrid-LavaGapS5-v0", num_envs=2, vectorization_mode="sync")
    taught = VectorTeacherWrapper(envs, WIRES[wire].model, **options)
    _, infos = taught.reset(seed=0)
    assert infos["_teacher_probs"].any(), [each.call.problem for each in calls(Store())]
    (tmp_path / "summary.json").write_text(json.dumps([vars(taught.teacher.counters), infos["teacher_probs"].tolist()]))
    taught.close()
    main(["store", "list"])
    main(["store", "show", "2"])
    main(["store", "export", "export.jsonl"])
    main(["report", "--store", "-o", "report.html"])
    written = {str(file): file.read_bytes().decode("latin-1") for file in tmp_path.rglob("*") if file.is_file()}
    written["terminal"] = "".join(capsys.readouterr())
    written["log"] = caplog.text
    assert any("export" in name for name in written)
    assert any("html" in name for name in written)
    assert any(f"<{variable}>" in text or "***" in text for text in written.values())
    assert not [(name, spelling) for name, text in written.items() for spelling in spellings if spelling in text]


def test_outside_of_calls_httpx_is_as_it_was(provider):
    provider.faults = lambda _: FAULTS["redirect"]
    with pytest.raises(TransportError):
        Teacher(WIRES["openai"].model, store=None).advise(next(views(1)))

    async def ask_ourselves():
        async with httpx.AsyncClient(follow_redirects=True) as ours:
            body = {"model": "llava", "messages": []}
            return [await ours.post(f"{provider.url}/ollama/api/chat", json=body) for _ in range(2)]

    assert [reply.status_code for reply in asyncio.run(ask_ourselves())] == [200, 200]
    assert [path for path, _, _ in provider.strays] == ["/elsewhere/ollama/api/chat"] * 2
