"""``lvlm2p store``: what it shows, shares and deletes."""

import io
import json
import sys
import time

import pytest

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.cli import main
from lvlm2p_wrappers.records import Answer
from lvlm2p_wrappers.store import Ledger, Store
from tests.store.store_samples import ANSWER, CALL, FAILURE, PNG, changed

OTHER = changed(CALL, key="other", env_id="FrozenLake-v1", requested_model="openai/gpt-4o-mini")


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path, monkeypatch):
    """The default store, with a good call, a failed one, and one of another model about another environment."""
    is_file = request.param == "sqlite"
    location = str(tmp_path / "store.sqlite") if is_file else request.getfixturevalue("postgres").url()
    monkeypatch.setenv("LVLM2P_STORE", location)
    with Store(location) as store:
        store.record(CALL, ANSWER)
        store.record(FAILURE)
        store.record(OTHER, Answer("{}", "openai/gpt-4o-mini"))
    return location


@pytest.fixture
def lvlm2p(capsys):
    """Runs ``lvlm2p store ...``, which has to succeed, and returns what it prints."""

    def run(*args, code=0):
        assert main(["store", *map(str, args)]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return run


def contents(location):
    with Store(location) as store:
        return [(logged.at, logged.call) for logged in stores.calls(store)], list(stores.answers(store))


def test_stats_tell_answers_calls_tokens_and_cost(location, lvlm2p):
    shown = lvlm2p("stats")
    assert str(location) in shown
    assert "2 (gemini/gemini-2.5-flash-lite: 1, openai/gpt-4o-mini: 1)" in shown
    assert "3 (error: 1, ok: 2)" in shown
    assert "$0.0002, and 1 calls of unknown price" in shown

    found = json.loads(lvlm2p("stats", "--json"))
    assert found["calls"] == {"error": 1, "ok": 2}
    assert found["size_bytes"] > len(PNG)
    assert found["shared_calls"] == 0
    (gemini, gpt) = found["models"]
    assert (gemini["model"], gemini["calls"], gemini["prompt_tokens"]) == (CALL.requested_model, 2, 1800)
    assert gpt["cost_usd"] == pytest.approx(0.0001)


def test_stats_tell_what_all_who_share_the_budget_have_spent(location, lvlm2p):
    with Store(location) as store:
        Ledger(store).reserve("a", 2_500_000_000, usd=None, calls=None)
        Ledger(store).reserve("b", 1_000_000_000, usd=None, calls=None)
        Ledger(store).settle("b", 1_000_000_000, charge=500_000_000, is_made=True)
    assert "shared budget  $3.00, 2 calls" in lvlm2p("stats")


def test_list_shows_the_newest_calls_first_and_what_went_wrong(lvlm2p, location):  # noqa: ARG001
    header, *rows = lvlm2p("list").splitlines()
    assert header.split() == ["id", "at", "env", "stage", "model", "outcome", "cost", "problem"]
    assert [row.split()[0] for row in rows] == ["3", "2", "1"]
    assert rows[1].endswith("HTTP 503: overloaded")


@pytest.mark.parametrize(
    ("conditions", "ids"),
    [
        (["--outcome", "error"], [2]),
        (["--model", "openai/gpt-4o-mini"], [3]),
        (["--env", "MiniGrid-*"], [2, 1]),
        (["--env", "MiniGrid-*", "--limit", "1"], [2]),
        (["--limit", "2"], [3, 2]),
        (["--env", "Taxi-v3"], []),
    ],
)
def test_list_is_filtered(lvlm2p, location, conditions, ids):  # noqa: ARG001
    assert [call["id"] for call in json.loads(lvlm2p("list", *conditions, "--json"))] == ids


def test_show_prints_the_whole_call(lvlm2p, location):  # noqa: ARG001
    shown = lvlm2p("show", 1)
    for part in (
        *(turn.text for turn in CALL.messages),
        CALL.reply,
        CALL.key,
        CALL.env_id,
        "$0.0001",
        "prompt_tokens      900",
    ):
        assert part in shown
    failed = lvlm2p("show", 2)
    assert "status             503" in failed
    assert "overloaded" in failed
    assert "unpriced" in failed


def test_show_gives_the_picture_back(lvlm2p, location, tmp_path):  # noqa: ARG001
    lvlm2p("show", 1, "--picture", tmp_path / "view.png")
    assert (tmp_path / "view.png").read_bytes() == PNG
    assert "no/such/folder/view.png: No such file" in lvlm2p("show", 1, "--picture", "no/such/folder/view.png", code=2)


@pytest.mark.parametrize("number", [4, 99])
def test_show_says_that_there_is_no_such_call(lvlm2p, location, number):
    assert f"the store {location} has no call {number}" in lvlm2p("show", number, code=2)


def test_what_a_model_says_reaches_the_terminal_as_text_only(lvlm2p, location):
    hostile = "\x1b]0;owned\x07\x1b[2J[bold red]:smile:[/] \u202egnp.exe \x9b31m [link=http://x]y[/link]"
    with Store(location) as store:
        store.record(changed(CALL, reply=hostile, problem=hostile, outcome="bad_reply", answered_model=hostile))
    for shown in (lvlm2p("show", 4), lvlm2p("list")):
        assert not set(shown) & {"\x1b", "\x07", "\x9b", "\u202e"}
        assert "[bold red]:smile:[/] gnp.exe" in shown
    assert json.loads(lvlm2p("show", 4, "--json"))["reply"] == hostile


def test_a_label_set_travels_by_export_and_import(lvlm2p, location, tmp_path):
    exported, copy = tmp_path / "labels.jsonl", tmp_path / "elsewhere" / "copy.sqlite"
    assert "lines written to" in lvlm2p("export", exported)
    assert lvlm2p("import", exported, "--store", copy).startswith("2 answers and 3 calls are new in")
    assert contents(copy) == contents(location)
    again = json.loads(lvlm2p("import", exported, "--store", copy, "--json"))
    assert again == {"store": str(copy), "answers": 0, "calls": 0, "known": 5}
    assert contents(copy) == contents(location)


def test_an_import_changes_no_answer_that_is_there(lvlm2p, location, tmp_path):  # noqa: ARG001
    mine = tmp_path / "mine.sqlite"
    with Store(mine) as store:
        store.record(CALL, Answer('{"mine": 1}', "m"))
    lvlm2p("export", tmp_path / "labels.jsonl")
    lvlm2p("import", tmp_path / "labels.jsonl", "--store", mine)
    with Store(mine) as store:
        assert store.get(CALL.key) == Answer('{"mine": 1}', "m")
        assert store.get("other") is not None


def test_export_and_import_work_in_a_pipe(lvlm2p, location, tmp_path, monkeypatch):
    with Store(location) as store:
        store.record(changed(CALL, key="ü", reply="größer 日本語"), Answer('"ü"', "m"))
    lines = lvlm2p("export", "-")
    assert all(json.loads(line) for line in lines.splitlines())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode()), encoding="ascii"))
    lvlm2p("import", "-", "--store", tmp_path / "copy.sqlite")
    assert contents(tmp_path / "copy.sqlite") == contents(location)


def test_an_export_without_pictures_keeps_every_answer(lvlm2p, location, tmp_path):
    small = tmp_path / "small.jsonl"
    assert json.loads(lvlm2p("export", small, "--no-pictures", "--json"))["file"] == str(small)
    assert '"png": "' not in "".join(line for line in small.read_text().splitlines() if '"part"' in line)
    lvlm2p("import", small, "--store", tmp_path / "copy.sqlite")
    assert contents(tmp_path / "copy.sqlite")[1] == contents(location)[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no export of a store"),
        (b"notes\n", "is no export of a store"),
        (b"\xff\xfe\n", "is no export of a store"),
        (b'{"lvlm2p_store": 1}\n\xff\n', "line 2 of the import is broken"),
    ],
)
def test_a_file_that_is_no_export_is_refused(lvlm2p, location, tmp_path, content, said):
    before = contents(location)
    (tmp_path / "notes").write_bytes(content)
    assert said in lvlm2p("import", tmp_path / "notes", code=2)
    assert contents(location) == before


def test_files_that_cannot_be_opened_are_named(lvlm2p, location, tmp_path):  # noqa: ARG001
    assert "missing.jsonl: No such file" in lvlm2p("import", tmp_path / "missing.jsonl", code=2)
    assert "nowhere/x: No such file" in lvlm2p("export", tmp_path / "nowhere/x", code=2)


def test_an_export_that_fails_leaves_the_old_file(lvlm2p, location, tmp_path, monkeypatch):  # noqa: ARG001
    target = tmp_path / "labels.jsonl"
    target.write_text("old")

    def fill_the_disk(_store, fp, **_):
        fp.write("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lvlm2p_wrappers.cli.store.stores.export", fill_the_disk)
    assert "labels.jsonl: No space left" in lvlm2p("export", target, "--force", code=2)
    assert target.read_text() == "old"
    assert not list(tmp_path.glob("*.part"))


def test_no_output_is_written_over_a_store_or_without_force_over_another_file(lvlm2p, location, tmp_path):  # noqa: ARG001
    """`store export STORE` and `store show --picture STORE` overwrite the store: 1,446 answers gone."""
    file = tmp_path / "another.sqlite"
    with Store(file) as store:
        store.record(CALL, ANSWER)
    before = contents(file)
    (tmp_path / "thesis.pdf").write_bytes(b"years of work")
    for action in (["show", 1, "--picture"], ["export"]):
        assert "never overwritten" in lvlm2p(*action, file, "--force", code=2)
        assert "add --force" in lvlm2p(*action, tmp_path / "thesis.pdf", code=2)
    assert contents(file) == before
    assert (tmp_path / "thesis.pdf").read_bytes() == b"years of work"
    lvlm2p("export", tmp_path / "thesis.pdf", "--force")
    assert (tmp_path / "thesis.pdf").read_bytes().startswith(b'{"lvlm2p_store"')


def test_prune_says_what_it_would_delete_and_deletes_it_only_when_told(lvlm2p, location):
    before = contents(location)
    condition = ("--model", "openai/gpt-4o-mini")
    assert lvlm2p("prune", *condition) == "would delete 1 answers and 1 calls; add --yes to do it\n"
    assert contents(location) == before
    assert lvlm2p("prune", *condition, "--yes").startswith("deleted 1 answers, 1 calls")
    calls, answers = contents(location)
    assert [call for _, call in calls] == [FAILURE, CALL]
    assert [stored.key for stored in answers] == [CALL.key]


@pytest.mark.parametrize(
    "conditions",
    [
        ["--outcome", "error"],
        ["--older-than-days", "0"],
        ["--older-than-days", "1"],
        ["--model", CALL.requested_model, "--keep-answers"],
        ["--model", CALL.requested_model, "--outcome", "ok"],
        ["--key", OTHER.key],
    ],
)
def test_what_prune_says_beforehand_is_what_it_does(lvlm2p, location, conditions):  # noqa: ARG001
    time.sleep(0.01)
    said = json.loads(lvlm2p("prune", *conditions, "--json"))
    done = json.loads(lvlm2p("prune", *conditions, "--json", "--yes"))
    assert (said["deleted"], done["deleted"]) == (False, True)
    assert (said["answers"], said["calls"]) == (done["answers"], done["calls"])


def test_prune_without_a_condition_is_refused(lvlm2p, location):
    before = contents(location)
    assert "say what to delete" in lvlm2p("prune", "--yes", code=2)
    assert contents(location) == before


@pytest.mark.parametrize("action", [["stats"], ["list"], ["show", 1], ["export", "-"], ["prune", "--outcome", "ok"]])
def test_looking_for_a_store_that_is_not_there_makes_none(lvlm2p, tmp_path, action):
    missing = tmp_path / "missing.sqlite"
    assert f"there is no store {missing}" in lvlm2p(*action, "--store", missing, code=2)
    assert not missing.exists()


def test_a_file_that_is_no_store_is_refused(lvlm2p, tmp_path):
    (tmp_path / "text").write_text("some text that is long enough to be none of SQLite's files" * 20)
    assert "is not an lvlm2p store" in lvlm2p("stats", "--store", tmp_path / "text", code=2)
