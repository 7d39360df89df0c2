"""Reading and pruning what a store holds."""

import io
import struct
import time
import tracemalloc
import zlib

import pytest
import sqlalchemy as sa

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.records import Answer, Message
from lvlm2p_wrappers.store import Store
from tests.store.store_samples import ANSWER, CALL, FAILURE, PNG, changed, sql


def spoil(store, statement, **values):
    """Change the store's rows behind its back."""
    try:
        assert sql(store.path, statement, **values) > 0
    except (sa.exc.ProgrammingError, sa.exc.DataError):
        pytest.skip("this engine keeps nothing of the sort")


class TestLog:
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

    def test_repeated_texts_and_pictures_are_kept_once(self, store):
        rows = "SELECT kind, length(data) FROM parts ORDER BY kind, data"
        store.record(CALL, ANSWER)
        once = sql(store.path, rows)
        for i in range(20):
            store.record(changed(CALL, key=str(i)), ANSWER)
        assert sql(store.path, rows) == once
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


class TestDamage:
    """Somebody else's store may hold anything: what cannot be read is named and left out, and the rest is there."""

    @pytest.fixture
    def store(self, store):
        store.record(changed(CALL, key="good"), ANSWER)
        own = changed(CALL, key="bad", messages=(Message("user", "words of its own"),))
        store.record(own, Answer("{}", "m"))
        return store

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE calls SET at = 'yesterday' WHERE key = 'bad'",
            "UPDATE calls SET at = 1e300 WHERE key = 'bad'",
            "UPDATE calls SET outcome = 'splendid' WHERE key = 'bad'",
            "UPDATE calls SET prompt_tokens = 'many' WHERE key = 'bad'",
            "UPDATE calls SET env_id = CAST('ff' AS BLOB) WHERE key = 'bad'",
            "UPDATE calls SET schema = 7 WHERE key = 'bad'",
            "UPDATE turns SET role = 'wizard' WHERE call_id = 2",
            "UPDATE turns SET text = 'of another' WHERE call_id = 2",
            "UPDATE parts SET data = :junk WHERE kind = 'text' AND data = :words",
            "UPDATE parts SET data = 7 WHERE kind = 'text' AND data = :words",
            "UPDATE parts SET kind = 'text+zlib' WHERE kind = 'text' AND data = :words",
            "DELETE FROM parts WHERE kind = 'text' AND data = :words",
        ],
    )
    def test_a_damaged_call_is_named_and_the_others_are_read_and_exported(self, store, damage, caplog, new_location):
        """Random bytes in the table of parts, or text in the place of a number, ended in tracebacks."""
        spoil(store, damage, words=b"words of its own", junk=b"\xff\xfe")
        assert [logged.call.key for logged in stores.calls(store)] == ["good"]
        assert "the call 2 of the store is damaged and left out" in caplog.text
        assert stores.call(store, 2) is None
        exported = io.StringIO()
        stores.export(store, exported)
        exported.seek(0)
        with Store(new_location()) as copy:
            assert stores.load(copy, exported) == (2, 1, 0)
            assert next(stores.calls(copy)).call == changed(CALL, key="good")

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE answers SET at = 'yesterday' WHERE key = 'bad'",
            "UPDATE answers SET text = :junk WHERE key = 'bad'",
            "UPDATE answers SET text = 'no JSON' WHERE key = 'bad'",
        ],
    )
    def test_a_damaged_answer_is_named_and_the_others_are_there(self, store, damage, caplog):
        spoil(store, damage, junk=b"\xff\xfe")
        assert [stored.key for stored in stores.answers(store)] == ["good"]
        assert "the answer 'bad' of the store is damaged" in caplog.text

    def test_a_picture_that_is_none_is_left_out_of_its_call(self, store, caplog):
        """A PNG header that promised 60,000 x 60,000 pixels stopped the export."""
        huge = bytearray(PNG)
        huge[16:24] = struct.pack(">II", 60_000, 60_000)
        for data in (bytes(huge), PNG[:-20], b"\x89PNG\r\n\x1a\n" + bytes(100)):
            spoil(store, "UPDATE parts SET data = :data WHERE kind = 'png'", data=data)
            (call,) = (logged.call for logged in stores.calls(store, key="good"))
            assert [message.picture for message in call.messages] == [None, None]
            assert "damaged and left out: " in caplog.text
            caplog.clear()
            exported = io.StringIO()
            stores.export(store, exported)
            assert '"png": "' not in "".join(line for line in exported.getvalue().splitlines() if '"part"' in line)

    def test_a_text_that_unpacks_to_gigabytes_is_not_unpacked(self, store, caplog):
        spoil(
            store, "UPDATE parts SET data = :data WHERE kind = 'text+zlib'", data=zlib.compress(bytes(100 * 2**20), 1)
        )
        tracemalloc.start()
        assert [logged.call.key for logged in stores.calls(store)] == ["bad"]
        assert tracemalloc.get_traced_memory()[1] < 160 * 2**20
        tracemalloc.stop()
        assert "more than 67,108,864 bytes" in caplog.text

    def test_texts_that_unpack_to_gigabytes_together_are_not_all_unpacked(self, store, monkeypatch):
        monkeypatch.setattr("lvlm2p_wrappers.store.queries._MOST_BYTES", 1000)
        with pytest.raises(StoreError, match="more than 1,000 bytes: it is not to be trusted"):
            list(stores.calls(store))

    def test_a_call_that_says_one_text_ten_thousand_times_is_left_out(self, store, caplog):
        """A file of 300 kB made reports and lists of gigabytes."""
        store.record(changed(CALL, messages=(Message("user", "x" * 100_000),)))
        spoil(
            store,
            "INSERT INTO turns (call_id, position, role, text) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
            "FROM n WHERE i < 50) SELECT call_id, i + 1, role, text FROM turns, n WHERE position = 0",
        )
        assert 3 not in {entry.id for entry in stores.calls(store)}
        assert "its messages have more than 4,194,304 characters" in caplog.text

    def test_one_call_is_read_without_the_others(self, store, caplog):
        """`store show 17` decoded every newer call on its way."""
        spoil(store, "UPDATE calls SET at = 'yesterday' WHERE key = 'bad'")
        found = stores.call(store, 1)
        assert (found.id, found.call) == (1, changed(CALL, key="good"))
        assert stores.call(store, 3) is None
        assert stores.call(store, 10**20) is None
        assert not caplog.records


class TestPruning:
    def test_old_calls_go_with_their_answers_and_the_parts_that_nothing_else_needs(self, store):
        store.record(CALL, ANSWER)
        for table in ("calls", "answers"):
            sql(store.path, f"UPDATE {table} SET at = at - 10 * 86400")
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

    def test_one_answer_can_be_pruned_alone(self, store):
        """A bad answer could only be dropped with all of its model's."""
        store.record(CALL, ANSWER)
        store.record(changed(CALL, key="bad"), Answer("{}", ANSWER.model))
        assert stores.prune(store, key="bad", dry_run=True) == (1, 1, 0)
        assert store.get("bad") is not None
        assert stores.prune(store, key="bad") == (1, 1, 0)
        assert (store.get("bad"), store.get("k")) == (None, ANSWER)
        assert [logged.call.key for logged in stores.calls(store)] == ["k"]

    def test_what_would_be_pruned_is_counted_without_reading_it(self, store, caplog):
        """A dry run loaded every picture in order to count."""
        store.record(CALL, ANSWER)
        spoil(store, "UPDATE parts SET data = :junk WHERE kind = 'png'", junk=b"\0")
        assert stores.prune(store, model=ANSWER.model, dry_run=True) == (1, 1, 0)
        assert not caplog.records

    def test_pruning_without_a_condition_is_refused(self, store):
        store.record(CALL, ANSWER)
        with pytest.raises(StoreError, match="needs a condition"):
            stores.prune(store)
        assert store.get("k") == ANSWER
