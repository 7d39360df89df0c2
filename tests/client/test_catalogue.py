"""What is told about a model string before the first call, and what is not."""

import json

import pytest

from lvlm2p_wrappers import ModelError, Teacher, TransportError
from lvlm2p_wrappers.client import catalogue
from tests.client.asking import views
from tests.provider import Provider

CLOUDS = ["bedrock/anthropic.claude-3-haiku-20240307-v1:0", "vertex_ai/gemini-2.5-flash", "azure/my-deployment"]


@pytest.mark.parametrize("model", [*CLOUDS, "nvidia_nim/some-model", "databricks/some-model"])
def test_a_provider_that_may_find_credentials_elsewhere_is_let_through(model):
    """Bedrock with `~/.aws` or an instance role, Vertex AI and Azure AD were refused for want of variables."""
    catalogue.check(model, None)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("openai/gpt-4o-mini", "OPENAI_API_KEY"),
        ("gemini/gemini-2.5-flash-lite", "GEMINI_API_KEY or GOOGLE_API_KEY"),
        ("anthropic/claude-haiku-4-5", "ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN"),
        ("mistral/pixtral-12b", "MISTRAL_API_KEY"),
        ("groq/some-model", "GROQ_API_KEY"),
        ("openrouter/openai/gpt-4o-mini", "OPENROUTER_API_KEY or OR_API_KEY"),
        ("xai/grok-4", "XAI_API_KEY"),
    ],
)
def test_a_provider_that_certainly_needs_its_key_is_refused_without(monkeypatch, model, names):
    for name in names.split(" or "):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelError, match=f"needs a key: set {names} in the environment"):
        catalogue.check(model, None)
    for name in names.split(" or "):
        monkeypatch.setenv(name, "some-key")
        catalogue.check(model, None)
        monkeypatch.delenv(name)


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    """AWS without variables for its keys, and Bedrock's address on loopback."""
    pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION_NAME", "us-east-1")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with Provider() as provider:
        monkeypatch.setenv("AWS_BEDROCK_RUNTIME_ENDPOINT", provider.url)
        yield provider


def test_bedrock_is_asked_with_the_credentials_of_a_file(cloud, tmp_path):
    secret = "aws-secret-that-signs"
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = {secret}\n"
    )
    with pytest.raises(TransportError):  # the loopback provider does not speak Bedrock's format
        Teacher(CLOUDS[0], store=None, max_retries=0).advise(next(views(1)))
    ((path, headers, body),) = cloud.strays
    assert path.startswith("/model/anthropic.claude-3-haiku")
    assert "Credential=AKIAEXAMPLE/" in headers["Authorization"]
    assert secret not in json.dumps(headers) + body.decode()


@pytest.mark.usefixtures("cloud")
def test_where_no_credentials_are_found_the_variables_are_a_hint(monkeypatch):
    monkeypatch.setenv("AWS_REGION_NAME", "us-west-2")  # LiteLLM remembers what it found for a region
    with pytest.raises(ModelError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Teacher(CLOUDS[0], store=None, max_retries=0).advise(next(views(1)))
