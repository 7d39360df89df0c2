"""Keys and terminal escapes are struck out of all that is printed or stored."""

import base64
import html
import json
import pickle
import time
from urllib.parse import quote

import pytest

from lvlm2p_wrappers import BadReplyError, TransportError, UsageError
from lvlm2p_wrappers.redaction import keys_in_environment, printable, without_keys

KEY = "sQ/9+x==&Zk0v'\u00e97"


@pytest.mark.parametrize(
    "spelling",
    [
        KEY,
        json.dumps(KEY),
        json.dumps(KEY).replace("/", "\\/"),
        json.dumps(KEY, ensure_ascii=False),
        quote(KEY),
        quote(KEY, safe=""),
        quote(KEY, safe="").lower().replace("sq", "sQ").replace("z", "Z"),
        html.escape(KEY),
        *(
            base64.b64encode(f"{user}:{KEY}{after}".encode()).decode()
            for user in ("", "u", "me", "api")
            for after in ("", "!")
        ),
        base64.urlsafe_b64encode(f"user:{KEY}".encode()).decode(),
        KEY.encode().hex(),
        "".join(f"\\u{ord(c):04x}" for c in KEY),
        "".join(f"\\u{ord(c):04X}" if i % 2 else c for i, c in enumerate(KEY)),
        json.dumps("".join(f"\\u{ord(c):04x}" for c in KEY)),
        "".join(f"\\x{ord(c):02x}" for c in KEY),
        "".join(f"\\{ord(c):03o}" for c in KEY),
        "".join(f"\\u{{{ord(c):x}}}" for c in KEY),
        "".join(f"%{byte:02X}" for byte in KEY.encode()),
        quote("".join(f"%{byte:02x}" for byte in KEY.encode())),
        "".join(f"&#{ord(c)};" for c in KEY),
        "".join(f"&#x{ord(c):X};" for c in KEY),
        html.escape(html.escape(KEY)),
        "\u200b".join(KEY),
        json.dumps("\u200b".join(KEY)),
        "\x1b[31m".join(KEY),
        KEY.replace("9", "\\u0039\u2060\x00"),
    ],
)
def test_a_key_is_struck_out_however_a_provider_spells_it(monkeypatch, spelling):
    """A provider that echoes a key with `/` written as `\\/`, in a URL, or in base64, leaves it in nothing we write.

    Written as `\\u0073k-...` it stayed in stored replies, and stood in plain words in pages, which read the JSON. With
    invisible characters in between, which messages lose, it stood in plain words there.
    """
    monkeypatch.setenv("SOME_API_KEY", KEY)
    cleaned = without_keys(f"Bad key {spelling}.")
    assert "<SOME_API_KEY>" in cleaned
    shared = [spelling[i : i + 8] for i in range(len(spelling) - 7) if spelling[i : i + 8] in cleaned]
    assert not shared


def test_the_environments_secrets_are_known_by_their_names_and_the_longest_is_replaced_first(monkeypatch):
    secrets = {
        "A_KEY": "12345678",
        "B_TOKEN": "12345678-and-more",
        "AWS_SECRET_ACCESS_KEY": "aws/secret+value",
        "AWS_ACCESS_KEY_ID": "ASIA123456",
        "AZURE_CLIENT_SECRET": "azure~secret",
        "MY_PASSWORD": "correct horse",
        "AWS_BEARER_TOKEN_BEDROCK": "bedrock-api-key",
        "SNOWFLAKE_JWT": "eyJ0eXAi.eyJpc3Mi",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:pass-word-1@proxy:3128")
    monkeypatch.setenv("INDEX_URL", "https://a-token-as-name@host/simple")
    monkeypatch.setenv("OTHER_PROXY", "http://me:p%40ssw0rd@proxy:3128")
    monkeypatch.setenv("TINY_KEY", "monkey")
    found = keys_in_environment()
    assert secrets.items() <= found.items()
    assert found["HTTPS_PROXY"] == "pass-word-1"
    assert without_keys("a-token-as-name p%40ssw0rd p@ssw0rd") == "<INDEX_URL> <OTHER_PROXY> <OTHER_PROXY>"
    assert (
        without_keys("12345678-and-more, 12345678, pass-word-1, monkey") == "<B_TOKEN>, <A_KEY>, <HTTPS_PROXY>, monkey"
    )


def test_striking_out_takes_no_longer_than_the_text_is_long(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", KEY)
    began = time.process_time()
    for piece in ("\\", "s\\", "sQ\x1b]", "%25", "&amp;", "&#0", "\\u0", "sQ\u200b", "s\x1b["):
        assert without_keys(piece * 30_000) == piece * 30_000
    assert time.process_time() - began < 5


def test_what_looks_like_a_key_of_a_known_provider_is_struck_out_although_it_is_not_the_users():
    assert without_keys("Incorrect key sk-test****************3b.") == "Incorrect key <key>."
    assert without_keys("a risk-averse, task-oriented agent") == "a risk-averse, task-oriented agent"


@pytest.mark.parametrize(
    "hostile",
    [
        "busy\x1b]0;owned\x07, wait",
        "busy\x1b]8;;http://evil\x1b\\, wait",
        "\x1b[2J\x1b[1;31mbusy\x9b0m, wait",
        "busy\r, wait\x08\x00\x7f",
        "\u202ebusy\u2066, wa\u200bit\ufeff",
        "busy, wait\U000e0041\u2028",
    ],
)
def test_what_steers_a_terminal_is_taken_out_of_a_text_and_its_words_stay(hostile):
    """Escape sequences in a provider's error or a bad reply reached the terminal raw."""
    assert printable(hostile) == "busy, wait"
    for error in (TransportError(hostile, status=500), UsageError(hostile), BadReplyError(hostile, kind="json")):
        assert str(error) == "busy, wait"


def test_ordinary_text_is_printable_as_it_is():
    text = "caf\u00e9 \u6f22\u5b57 \U0001f916,\n\tindented"
    assert printable(text) == text


def test_an_error_holds_no_key_and_survives_the_way_between_processes(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "1234567890abc")
    error = pickle.loads(pickle.dumps(TransportError("refused 1234567890abc", status=401)))
    assert str(error) == "refused <SOME_API_KEY>"
