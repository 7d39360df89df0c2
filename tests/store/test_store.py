"""The store on each engine: what it keeps, and what it never writes."""

import io
import json
import threading
from pathlib import Path

import pytest

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.records import Answer, Message
from lvlm2p_wrappers.store import Store, tables
from tests.store.store_samples import ANSWER, CALL, FAILURE, changed, sql


def everything(store):
    """Every row of a store, and its export."""
    rows = {table: sql(store.path, f"SELECT * FROM {table} ORDER BY 1") for table in tables.METADATA.tables}
    exported = io.StringIO()
    stores.export(store, exported)
    return rows, exported.getvalue()


class TestAnswers:
    def test_what_was_recorded_is_there_and_nothing_else_is(self, store):
        store.record(CALL, ANSWER)
        assert store.get("k") == ANSWER
        assert store.get("another") is None

    def test_a_new_process_finds_the_answers_of_an_old_one(self, location):
        with Store(location) as old:
            old.record(CALL, ANSWER)
        with Store(location) as new:
            assert new.get("k") == ANSWER

    def test_a_failed_call_is_logged_and_answers_nothing(self, store):
        store.record(FAILURE)
        assert store.get("k") is None
        assert [logged.call for logged in stores.calls(store)] == [FAILURE]

    def test_the_first_answer_to_a_key_stays(self, store):
        store.record(CALL, ANSWER)
        store.record(CALL, Answer("{}", "another model"))
        assert store.get("k") == ANSWER

    def test_a_closed_store_opens_again_when_it_is_used(self, store):
        store.record(CALL, ANSWER)
        store.close()
        assert store.get("k") == ANSWER

    @pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
    def test_a_closed_store_holds_no_handle(self, new_location):
        """Hundreds of teachers made and closed end in "unable to open database file"."""

        def handles():
            return len(list(Path("/proc/self/fd").iterdir()))

        before = handles()
        stores = [Store(new_location()) for _ in range(3)]
        for store in stores:
            store.record(CALL, ANSWER)
            assert store.get_or_claim("left open", seconds=60) is True
        assert handles() >= before + 3
        for store in stores:
            store.close()
            store.close()
        assert handles() <= before

    def test_text_that_utf8_cannot_hold_is_kept_escaped(self, store):
        store.record(changed(CALL, reply='"\ud800 \x00 é"', outcome="bad_reply"))
        (logged,) = stores.calls(store)
        assert logged.call.reply in ('"\\ud800 \x00 é"', '"\\ud800 \\u0000 é"')

    @pytest.mark.parametrize("values", [{"prompt_tokens": 2**63}, {"attempt": -(2**70)}])
    def test_a_number_that_no_database_can_hold_is_named(self, store, values):
        """Token counts of 2**63 ended a run in a traceback."""
        with pytest.raises(StoreError, match="too large|out of range"):
            store.record(changed(CALL, **values), ANSWER)
        store.record(CALL, ANSWER)

    def test_threads_share_a_store(self, store):
        def work(name):
            for i in range(50):
                store.record(changed(CALL, key=f"{name}-{i}"), ANSWER)
                assert store.get(f"{name}-{i}") == ANSWER

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stores.stats(store).answers == {ANSWER.model: 200}


class TestReading:
    def test_a_store_that_is_only_read_is_not_changed_and_cannot_be(self, store):
        store.record(CALL, ANSWER)
        store.close()
        before = everything(store)
        with Store(store.path, read_only=True) as reader:
            assert reader.get(CALL.key) == ANSWER
            with pytest.raises(StoreError, match="read-?only"):
                reader.get_or_claim("another", seconds=1)
        assert everything(store) == before

    def test_what_another_process_writes_meanwhile_is_seen(self, store):
        with Store(store.path, read_only=True) as reader:
            assert reader.get(CALL.key) is None
            store.record(CALL, ANSWER)
            assert reader.get(CALL.key) == ANSWER


class TestSecrets:
    def test_no_key_of_the_environment_reaches_the_disk(self, store, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-0123456789")
        leaks = "Incorrect key sk-0123456789, or aws-0123456789"
        call = changed(CALL, messages=(Message("user", leaks),), reply=leaks, problem=leaks, options=f'["{leaks}"]')
        store.record(call, Answer(f'{{"summary": "{leaks}"}}', "m"))

        (logged,) = stores.calls(store)
        written = [logged.call.messages[0].text, logged.call.reply, logged.call.problem]
        told = "Incorrect key <OPENAI_API_KEY>, or <AWS_SECRET_ACCESS_KEY>"
        assert written == [told] * 3
        assert json.loads(store.get("k").text) == {"summary": told}
        assert "0123456789" not in str(everything(store))

    def test_a_short_value_is_no_secret(self, store, monkeypatch):
        monkeypatch.setenv("LOCAL_API_KEY", "lava")
        store.record(CALL)
        assert next(stores.calls(store)).call.messages[1].text == "Mission: avoid the lava"
