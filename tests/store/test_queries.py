"""Reading, publishing and pruning what a store holds."""

import contextlib
import io
import sqlite3
import time
from dataclasses import replace

import pytest

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.records import Answer, Message
from lvlm2p_wrappers.store import Store, parts
from tests.store.store_samples import ANSWER, CALL, FAILURE, PNG, changed


@pytest.fixture
def file(tmp_path):
    return tmp_path / "teacher.sqlite"


@pytest.fixture
def store(file):
    with Store(file) as opened:
        yield opened


class TestArchive:
    def test_calls_come_back_whole_and_newest_first(self, store):
        store.record(CALL, ANSWER)
        store.record(FAILURE)
        before = time.time()
        logged = list(stores.calls(store))
        assert [entry.call for entry in logged] == [FAILURE, CALL]
        assert before - 60 < logged[1].at <= logged[0].at <= before

    def test_calls_are_found_by_outcome_model_and_key(self, store):
        store.record(CALL, ANSWER)
        store.record(FAILURE)
        store.record(changed(CALL, key="other", requested_model="openai/gpt-4o-mini"))

        def found(**conditions):
            return [(logged.call.key, logged.call.outcome) for logged in stores.calls(store, **conditions)]

        assert found(outcome="error") == [("k", "error")]
        assert found(key="other") == [("other", "ok")]
        assert found(model="openai/gpt-4o-mini") == [("other", "ok")]
        assert found(model="gemini-2.5-flash-lite", outcome="ok", key="k") == [("k", "ok")]
        assert found(limit=2) == [("other", "ok"), ("k", "error")]

    def test_a_long_log_is_read_to_its_end(self, store):
        for i in range(450):
            store.record(changed(CALL, key=f"{i:03}"), ANSWER)
        assert [logged.call.key for logged in stores.calls(store)] == [f"{i:03}" for i in reversed(range(450))]
        assert [stored.key for stored in stores.answers(store)] == [f"{i:03}" for i in range(450)]
        assert len(list(stores.calls(store, limit=201))) == 201

    def test_repeated_texts_and_pictures_are_kept_once(self, store, file):
        rows = "SELECT kind, length(data) FROM parts ORDER BY kind, data"
        store.record(CALL, ANSWER)
        with contextlib.closing(sqlite3.connect(file)) as raw:
            once = raw.execute(rows).fetchall()
        for i in range(20):
            store.record(changed(CALL, key=str(i)), ANSWER)
        with contextlib.closing(sqlite3.connect(file)) as raw:
            assert raw.execute(rows).fetchall() == once
        assert [kind for kind, _ in once] == ["png", "text", "text", "text+zlib"]
        assert dict(once)["text+zlib"] < len(CALL.messages[0].text) / 4

    def test_stats_count_answers_calls_tokens_and_dollars(self, store):
        store.record(CALL, ANSWER)
        store.record(changed(CALL, key="other"), ANSWER)
        store.record(FAILURE)
        found = stores.stats(store)
        assert found.answers == {ANSWER.model: 2}
        assert found.calls == {"error": 1, "ok": 2}
        assert found.models == ((CALL.requested_model, 3, 2700, 120, pytest.approx(0.0002), 1),)
        assert found.size_bytes >= len(PNG)
        assert found.path == store.path

    def test_stats_of_a_new_store_are_zero(self, store):
        found = stores.stats(store)
        assert (found.answers, found.calls, found.models) == ({}, {}, ())


class TestPruning:
    def test_old_calls_go_with_their_answers_and_the_parts_that_nothing_else_needs(self, store, file):
        store.record(CALL, ANSWER)
        with contextlib.closing(sqlite3.connect(file)) as raw, raw:
            raw.execute("UPDATE calls SET at = at - 10 * 86400")
            raw.execute("UPDATE answers SET at = at - 10 * 86400")
        young = changed(CALL, key="young", messages=(CALL.messages[0],))
        store.record(young, ANSWER)

        assert stores.prune(store, older_than_days=30) == (0, 0, 0)
        assert stores.prune(store, older_than_days=5) == (1, 1, 2)  # the user's words and the picture
        assert [logged.call for logged in stores.calls(store)] == [young]
        assert (store.get("k"), store.get("young")) == (None, ANSWER)

    def test_pruning_by_outcome_keeps_every_answer(self, store):
        store.record(CALL, ANSWER)
        store.record(FAILURE)
        assert stores.prune(store, outcome="error") == (0, 1, 0)
        assert stores.prune(store, outcome="ok") == (0, 1, 4)
        assert store.get("k") == ANSWER

    def test_pruning_by_model_touches_no_other_model(self, store):
        other = changed(CALL, key="other", requested_model="openai/gpt-4o-mini", answered_model="gpt-4o-mini")
        store.record(CALL, ANSWER)
        store.record(other, Answer("{}", "openai/gpt-4o-mini"))
        assert stores.prune(store, model="openai/gpt-4o-mini") == (1, 1, 0)
        assert store.get("k") == ANSWER
        assert store.get("other") is None

    def test_the_log_can_be_pruned_and_the_answers_kept(self, store):
        store.record(CALL, ANSWER)
        assert stores.prune(store, model=ANSWER.model, keep_answers=True) == (0, 1, 4)
        assert store.get("k") == ANSWER

    def test_pruning_many_gives_their_space_back(self, store):
        for i in range(450):
            store.record(
                changed(CALL, key=str(i), messages=(Message("user", str(i), Picture.from_png(PNG + str(i).encode())),)),
                ANSWER,
            )
        full = stores.stats(store).size_bytes
        assert stores.prune(store, model=ANSWER.model).calls == 450
        assert stores.stats(store).size_bytes < full / 4

    def test_pruning_without_a_condition_is_refused(self, store):
        store.record(CALL, ANSWER)
        with pytest.raises(StoreError, match="needs a condition"):
            stores.prune(store)
        assert store.get("k") == ANSWER


class TestExchange:
    @pytest.fixture
    def exported(self, store):
        store.record(CALL, ANSWER)
        store.record(FAILURE)
        store.record(changed(CALL, key="other", messages=()), Answer("{}", "m"))
        lines = io.StringIO()
        assert stores.export(store, lines) == len(lines.getvalue().splitlines())
        return lines.getvalue()

    @staticmethod
    def contents(store):
        return [(logged.at, logged.call) for logged in stores.calls(store)], list(stores.answers(store))

    def test_a_store_survives_export_and_import(self, store, exported, tmp_path):
        with Store(tmp_path / "copy.sqlite") as copy:
            assert stores.load(copy, io.StringIO(exported)) == (2, 3, 0)
            assert self.contents(copy) == self.contents(store)

    def test_importing_twice_adds_nothing(self, store, exported):
        before = self.contents(store)
        assert stores.load(store, io.StringIO(exported)) == (0, 0, 5)
        assert self.contents(store) == before

    def test_an_answer_that_is_there_already_stays(self, exported, tmp_path):
        with Store(tmp_path / "mine.sqlite") as mine:
            mine.record(CALL, Answer('{"mine": 1}', "m"))
            assert stores.load(mine, io.StringIO(exported)) == (1, 3, 1)
            assert mine.get("k") == Answer('{"mine": 1}', "m")

    def test_pictures_can_be_left_out_and_added_later(self, store, exported, tmp_path):
        small = io.StringIO()
        stores.export(store, small, pictures=False)
        assert len(small.getvalue()) < len(exported) - len(PNG)
        with Store(tmp_path / "copy.sqlite") as copy:
            stores.load(copy, io.StringIO(small.getvalue()))
            blind = [logged.call for logged in stores.calls(copy, key="k", outcome="ok")]
            assert blind == [changed(CALL, messages=(CALL.messages[0], replace(CALL.messages[1], picture=None)))]
            stores.load(copy, io.StringIO(exported))
            assert self.contents(copy) == self.contents(store)

    @pytest.mark.parametrize("first", ["", "notes\n", "[1]\n", '{"answer": "k"}\n', '{"lvlm2p_store": 99}\n'])
    def test_what_is_no_export_is_refused(self, store, first):
        with pytest.raises(StoreError, match=r"this is no export|format 99.*upgrade"):
            stores.load(store, io.StringIO(first))

    @pytest.mark.parametrize(
        "broken",
        [
            "cut sho",
            "[]",
            '{"answer": "x", "text": "{}"}',
            '{"answer": "x", "text": null, "model": "m", "at": 1}',
            '{"answer": {}, "text": "{}", "model": "m", "at": 1}',
            '{"part": "0123", "text": "not what has this digest"}',
            '{"part": "0123", "png": "*"}',
            '{"call": "x", "messages": []}',
            '{"nothing": 1}',
        ],
    )
    def test_a_broken_line_is_named(self, store, broken):
        empty = f'{{"part": "{parts.digest(b"")}", "text": ""}}'
        with pytest.raises(StoreError, match="line 3 of the import is broken"):
            stores.load(store, io.StringIO("\n".join(['{"lvlm2p_store": 1}', empty, broken])))

    def test_a_store_in_memory_imports_nothing(self, exported):
        with pytest.raises(StoreError, match="in memory"):
            stores.load(Store(None), io.StringIO(exported))
