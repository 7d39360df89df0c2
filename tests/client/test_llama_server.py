"""A real vision-model server answers through LiteLLM: it decodes the picture and keeps to the schema."""

import base64
import io
import json

import jsonschema
import litellm
import numpy as np
import pytest
from PIL import Image

from tests.client import llama_server

pytestmark = pytest.mark.skipif(llama_server.missing_wheels() is not None, reason=str(llama_server.missing_wheels()))

ACTIONS = ["left", "right", "forward", "pickup", "drop", "toggle", "done"]
SCHEMA = {
    "type": "object",
    "properties": {
        "reasoning": {"type": "string"},
        "row": {"type": "integer"},
        "heading": {"enum": ["up", "right", "down", "left"]},
        "targets": {"type": "array", "items": {"type": "string"}},
        "probabilities": {
            "type": "object",
            "properties": {action: {"type": "number"} for action in ACTIONS},
            "required": ACTIONS,
            "additionalProperties": False,
        },
    },
    "required": ["reasoning", "row", "heading", "targets", "probabilities"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with llama_server.LlamaServer(tmp_path_factory.mktemp("llama")) as server:
        yield server


@pytest.fixture
def ask(server, monkeypatch):
    monkeypatch.setattr(litellm, "suppress_debug_info", True)
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)

    def ask(picture):
        url = "data:image/png;base64," + base64.b64encode(picture).decode()
        content = [{"type": "text", "text": "What now?"}, {"type": "image_url", "image_url": {"url": url}}]
        wanted = {"type": "json_schema", "json_schema": {"name": "policy", "strict": True, "schema": SCHEMA}}
        messages = [{"role": "system", "content": "Teach. " * 500}, {"role": "user", "content": content}]
        return litellm.completion(
            model=llama_server.MODEL,
            messages=messages,
            response_format=wanted,
            temperature=0,
            max_tokens=2048,
            logprobs=True,
            num_retries=0,
            max_retries=0,
        )

    return ask


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (288, 288, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("seed", range(5))
def test_an_answer_about_a_picture_keeps_to_its_schema_and_is_a_distribution(ask, seed):
    response = ask(picture(seed))
    answer = json.loads(response.choices[0].message.content)
    jsonschema.validate(answer, SCHEMA)
    assert response.choices[0].finish_reason == "stop"
    assert 0.5 <= sum(answer["probabilities"].values()) <= 1.5


def test_the_picture_has_a_say_in_the_answer(ask):
    def chances(seed):
        return [token["logprob"] for token in ask(picture(seed)).choices[0].logprobs.model_dump()["content"][:5]]

    assert chances(0) == pytest.approx(chances(0), abs=1e-3)
    assert chances(0) != pytest.approx(chances(1), abs=1e-3)


def test_bytes_that_are_no_picture_are_refused(ask):
    with pytest.raises(litellm.BadRequestError):
        ask(b"not a picture")


def test_a_wrong_key_is_refused(ask, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    with pytest.raises(litellm.AuthenticationError):
        ask(picture(0))
