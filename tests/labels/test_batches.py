"""``lvlm2p label --batch``: half the price, whatever becomes of the batches, and nothing paid for twice."""

import json

import pytest

from lvlm2p_wrappers import Teacher, read_labels
from lvlm2p_wrappers.cli import main
from lvlm2p_wrappers.labels import batch as batch_module
from lvlm2p_wrappers.store import Store, batches_of, calls
from lvlm2p_wrappers.store.batches import TABLE

pytest.importorskip("pyarrow", reason="label sets need the extra `labels`")

LAVA = "MiniGrid-LavaGapS5-v0"
GPT = "openai/gpt-4o-mini"
VLLM = "hosted_vllm/Qwen/Qwen2.5-VL-7B-Instruct"


@pytest.fixture
def label(capsys, monkeypatch):
    """Runs ``lvlm2p label ... --batch --json``; returns what it prints, or what it complains of."""
    monkeypatch.setattr(batch_module, "FIRST_PAUSE_S", 0.01)

    def run(*args, model=GPT, code=0, states=8, batch=("--batch",)):
        words = ["label", LAVA, "--model", model, "--states", str(states), "--out", "labels", *batch, *map(str, args)]
        assert main([*words, "--json"]) == code
        told = capsys.readouterr()
        return json.loads(told.out) if told.out.strip() else told.err

    return run


def asked(provider):
    """How often each question was asked, in batches and singly."""
    counts = {}
    for exchange in provider.log:
        question = (exchange.seen.digest, exchange.seen.asks_for_an_action)
        counts[question] = counts.get(question, 0) + 1
    return counts


def singly(provider):
    return [exchange for exchange in provider.log if not (exchange.fault or "").startswith("batch")]


class TestPrice:
    @pytest.mark.parametrize("model", [GPT, VLLM])
    def test_each_stage_is_one_batch_and_the_labels_are_those_of_single_calls(self, label, provider, model):
        told = label(model=model)
        assert (told["labels"], told["in_batches"], told["complete"]) == (8, 16, True)
        assert len(provider.batches.created) == 2
        assert not singly(provider)
        assert set(asked(provider).values()) == {1}
        labels = read_labels("labels")
        with Teacher(model, store=None) as teacher:
            alone = [teacher.advise(view).probs.tolist() for view in labels.views()]
        assert alone == labels.probs.tolist()

    def test_it_costs_half_of_what_single_calls_cost(self, label, provider):
        told = label()
        assert (
            told["cost_usd"]
            == pytest.approx(provider.cost_usd)
            == pytest.approx(sum(exchange.cost_usd for exchange in provider.log))
        )
        in_batches, provider.log[:] = provider.cost_usd, []
        label("--store", "other.sqlite", "--out", "singly", batch=())
        assert provider.cost_usd == pytest.approx(2 * in_batches)

    def test_the_log_has_each_call_with_its_price(self, label, provider):
        label()
        with Store("default", read_only=True) as store:
            logged = list(calls(store))
        assert len(logged) == 16
        assert sum(entry.call.cost_usd for entry in logged) == pytest.approx(provider.cost_usd)

    def test_a_key_goes_to_its_own_provider_alone(self, label, provider):
        """LiteLLM would send OpenAI's key and files to vLLM's server, or vLLM's to OpenAI."""
        label(model=VLLM)
        assert provider.batches.keys == {"token-vllm-93ab61"}

    def test_a_provider_without_batches_is_told_with_those_that_have_them(self, label, provider):
        told = label(model="gemini/gemini-2.5-flash-lite", code=2)
        assert "makes no batches for gemini" in told
        assert "openai" in told
        assert not provider.log


class TestFaults:
    def test_what_fails_or_is_lost_is_asked_in_a_second_batch_and_then_singly(self, label, provider):
        """Half of the rows fail in each batch: an error, no row at all, half a line."""
        fates = ("error", "lost", "broken", None, None, None)
        provider.batches.fate = lambda line, _: fates[line % 6]
        told = label(states=12)
        assert (told["labels"], told["complete"]) == (12, True)
        assert len(provider.batches.created) == 4
        assert 0 < len(singly(provider)) < 24
        assert len(read_labels("labels")) == 12

    def test_rows_that_come_twice_and_rows_of_strangers_change_nothing(self, label, provider):
        provider.batches.fate = lambda line, _: ("repeated", "stranger")[line % 2]
        told = label()
        assert (told["labels"], told["in_batches"]) == (8, 16)
        assert told["cost_usd"] == pytest.approx(provider.cost_usd)

    def test_a_batch_that_expires_keeps_what_was_answered_and_the_rest_is_asked_again(self, label, provider):
        provider.batches.ends = lambda batch: "expired" if batch in (0, 2) else "completed"
        told = label()
        assert (told["labels"], told["complete"]) == (8, True)
        assert set(asked(provider).values()) == {1}
        assert not singly(provider)

    def test_a_bad_reply_gets_its_repair_turn_in_a_single_call(self, label, provider):
        provider.batches.fate = lambda line, batch: "sum_7" if batch in (1, 2) and line == 0 else None
        told = label()
        assert (told["labels"], told["complete"]) == (8, True)
        assert len(singly(provider)) == 1

    def test_a_batch_that_the_provider_refuses_ends_the_command_and_nothing_is_asked_singly(self, label, provider):
        provider.batches.ends = lambda _: "failed"
        assert label(code=1)["complete"] is False
        assert not provider.log

    def test_a_reply_that_was_lost_when_a_batch_was_submitted_is_no_second_batch(self, label, provider):
        """The provider has the batch, the command does not know its name: it finds it by its token."""
        provider.batches.drop_reply = True
        label(code=1)
        assert len(provider.batches.created) == 1
        provider.batches.drop_reply = False
        assert label()["labels"] == 8
        assert len(provider.batches.created) == 2
        assert set(asked(provider).values()) == {1}


class TestStopping:
    def test_a_command_that_is_stopped_goes_on_with_its_batch(self, label, provider, monkeypatch):
        def interrupted(_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(batch_module.time, "sleep", interrupted)
            label(code=130)
        assert len(provider.batches.created) == 1
        assert label()["labels"] == 8
        assert len(provider.batches.created) == 2
        assert set(asked(provider).values()) == {1}

    def test_a_finished_job_submits_nothing(self, label, provider):
        label()
        assert label()["new"] == 0
        assert label(states=9)["new"] == 1
        assert set(asked(provider).values()) == {1}


class TestBudget:
    def test_batches_are_submitted_as_far_as_the_budget_reaches(self, label, provider):
        told = label("--budget-calls", 20, states=12, code=1)
        assert len(provider.log) == told["in_batches"] == 20
        assert told["labels"] == 8
        told = label(states=12)
        assert (told["labels"], told["complete"]) == (12, True)
        assert set(asked(provider).values()) == {1}

    def test_what_a_batch_could_cost_is_reserved_before_it_is_submitted(self, label, provider):
        """A dear budget is needed for the first batch, of which the bills are not known yet."""
        label("--budget-usd", 0.0001, code=1)
        assert not provider.batches.created
        assert label("--budget-usd", 0.01, states=12)["labels"] == 12
        assert len(provider.batches.created) > 2  # one after the other, as bills tell what there is left

    def test_an_earlier_calls_batches_count(self, label, provider):
        label("--budget-calls", 16)
        assert label("--budget-calls", 16, states=12, code=1)["labels"] == 8
        assert len(provider.log) == 16

    def test_what_is_charged_stands_in_the_store(self, label, provider):
        label()
        with Store("default", read_only=True) as store:
            with store.transaction() as connection:
                job = connection.execute(TABLE.select()).first().job
            found = batches_of(store, job)
        assert [batch.status for batch in found] == ["done", "done"]
        assert sum(batch.usd for batch in found) == pytest.approx(provider.cost_usd)
