"""``lvlm2p doctor`` tells what is there, and of keys only the names."""

import json

import pytest

from lvlm2p_wrappers.cli import main
from lvlm2p_wrappers.store import Store

PLANNER = "embedded/minigrid-planner"


@pytest.fixture
def doctor(tmp_path, capsys):
    def run(*flags):
        code = main(["doctor", f"--store={tmp_path / 'store.sqlite'}", *flags])
        return code, capsys.readouterr()

    return run


def test_it_tells_versions_and_that_the_embedded_teacher_answers(doctor):
    code, told = doctor()
    assert code == 0
    for name in ("python", "gymnasium", "minigrid", "litellm", "prompts", "store.sqlite, not there yet"):
        assert name in told.out
    assert f"{PLANNER}  answers: 2 calls" in told.out


def test_it_makes_no_store_and_keeps_no_answer(doctor, tmp_path):
    doctor()
    assert not list(tmp_path.iterdir())
    Store(tmp_path / "store.sqlite").close()
    _, told = doctor("--json")
    assert json.loads(told.out)["store"]["answers"] == 0


def test_of_keys_it_tells_the_names_alone(doctor, monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "a-key-that-nobody-may-see")
    for flags in ([], ["--json"]):
        _, told = doctor(*flags)
        assert "GEMINI_API_KEY" in told.out
        assert "a-key-that-nobody" not in told.out + told.err


def test_a_model_that_cannot_answer_is_told_last_and_in_the_exit_code(doctor, monkeypatch):
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    code, told = doctor("--model=gemini/gemini-2.5-flash-lite")
    assert code == 2
    assert "python" in told.out
    assert "needs a key: set GEMINI_API_KEY" in told.err
    code, told = doctor("--model=gemini/gemini-2.5-flash-lite", "--json")
    assert "needs a key" in json.loads(told.out)["error"]


def test_what_is_not_installed_is_told_by_its_extra(doctor, monkeypatch):
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["not-there>=1; extra == 'algos'", "numpy>=1"])
    _, told = doctor()
    assert "without [algos]" in told.out
    assert "not-there" in told.out
    _, told = doctor("--json")
    assert json.loads(told.out)["missing"] == {"algos": ["not-there"]}
