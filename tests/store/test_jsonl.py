"""Publishing a store as JSON Lines, and merging what others have published."""

import base64
import io
import json
import os
import struct
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.records import Answer
from lvlm2p_wrappers.store import Store, jsonl, statements
from tests.store.store_samples import ANSWER, CALL, FAILURE, PNG, changed

ROOT = Path(__file__).parents[2]
HEADER = '{"lvlm2p_store": 1}\n'


@pytest.fixture
def copy(new_location):
    with Store(new_location()) as opened:
        yield opened


@pytest.fixture
def exported(store):
    store.record(CALL, ANSWER)
    store.record(FAILURE)
    store.record(changed(CALL, key="other", messages=()), Answer("{}", "m"))
    return written(store)


def written(store, **options):
    lines = io.StringIO()
    assert stores.export(store, lines, **options) == len(lines.getvalue().splitlines())
    return lines.getvalue()


def contents(store):
    return [(logged.at, logged.call) for logged in stores.calls(store)], list(stores.answers(store))


def load(store, text):
    return stores.load(store, io.StringIO(text))


class TestExport:
    def test_a_store_survives_export_and_import(self, store, exported, copy):
        assert load(copy, exported) == (2, 3, 0)
        assert contents(copy) == contents(store)
        assert written(copy) == exported

    def test_importing_twice_adds_nothing(self, store, exported):
        before = contents(store)
        assert load(store, exported) == (0, 0, 5)
        assert contents(store) == before

    def test_an_answer_that_is_there_already_stays(self, exported, copy):
        copy.record(CALL, Answer('{"mine": 1}', "m"))
        assert load(copy, exported) == (1, 3, 1)
        assert copy.get("k") == Answer('{"mine": 1}', "m")

    def test_pictures_can_be_left_out_and_added_later(self, store, exported, copy):
        small = written(store, pictures=False)
        assert len(small) < len(exported) - len(PNG)
        load(copy, small)
        blind = [logged.call for logged in stores.calls(copy, key="k", outcome="ok")]
        assert blind == [changed(CALL, messages=(CALL.messages[0], replace(CALL.messages[1], picture=None)))]
        load(copy, exported)
        assert contents(copy) == contents(store)

    def test_texts_and_pictures_may_all_come_first(self, store, exported, copy):
        """Version 0.1.0 wrote its exports so."""
        header, *lines = exported.splitlines()
        lines.sort(key=lambda line: "part" not in json.loads(line))
        assert load(copy, "\n".join([header, *lines])) == (2, 3, 0)
        assert contents(copy) == contents(store)

    def test_the_beginning_of_an_export_can_be_imported(self, exported, copy):
        head = exported.splitlines(keepends=True)
        assert load(copy, "".join(head[: len(head) - 3])) == (0, 2, 0)

    def test_a_store_in_memory_imports_nothing(self, exported):
        with pytest.raises(StoreError, match="in memory"):
            load(Store(None), exported)


def line(**changes):
    """A good line of each kind, with some values changed; None takes one out."""
    kind = next(iter(changes))
    call = {"call": "uid", "messages": [], "schema": EMPTY, "at": 1.5, "key": "k", "stage": "action", "env_id": "",
            "requested_model": "m", "options": "{}", "reply": None, "answered_model": None, "outcome": "ok",
            "problem": "", "status": None, "attempt": 1, "latency_s": 0.5, "prompt_tokens": 1,
            "completion_tokens": None, "cost_usd": 0.1}  # fmt: skip
    good = {"answer": {"answer": "x", "text": "{}", "model": "m", "at": 1}, "call": call, "part": {}}[kind]
    return json.dumps({name: value for name, value in (good | changes).items() if value is not ...})


def png_line(png):
    return line(part=statements.digest(png), png=base64.b64encode(png).decode())


EMPTY = statements.digest(b"")
HUGE_PNG = PNG[:16] + struct.pack(">II", 60_000, 60_000) + PNG[24:]


class TestBrokenLines:
    """Lines of others are checked as strictly as our own rows; one was let in with `"at": "yesterday"`."""

    @pytest.mark.parametrize(
        "first", ["", "notes\n", "[1]\n", '{"answer": "k"}\n', '{"lvlm2p_store": 99}\n', "[" * 990]
    )
    def test_what_is_no_export_is_refused(self, store, first):
        with pytest.raises(StoreError, match=r"this is no export|format 99.*upgrade"):
            load(store, first)

    def test_good_lines_are_good(self, store):
        text = HEADER + "\n".join([line(part=EMPTY, text=""), png_line(PNG), line(call="uid"), line(answer="x")])
        assert load(store, text) == (1, 1, 0)

    @pytest.mark.parametrize(
        ("broken", "told"),
        [
            ("cut sho", "JSON"),
            ("[]", "no part, call or answer"),
            ("\n{}", "JSON"),
            ("[" * 100_000, "JSON"),
            ('{"nothing": 1}', "no part, call or answer"),
            ("\udcff", "JSON"),
            (line(answer="x", at=...), "at: Field required"),
            (line(answer="x", at="yesterday"), "at: .*number.*'yesterday'"),
            (line(answer="x", at=1e300), "at: "),
            (line(answer="x", at=float("nan")), "at: "),
            (line(answer="x", at=-1), "at: "),
            (line(answer="x", text=None), "text: "),
            (line(answer="x", text="no JSON"), "JSON"),
            (line(answer="x", text="[" * 100_000), "recursion"),
            (line(answer="x", more=1), "more: "),
            (line(answer={}), "answer: "),
            (line(answer=""), "answer: "),
            (line(part="0123", text=""), "part: "),
            (line(part=EMPTY, text="another"), "does not have its digest"),
            (line(part=EMPTY), "either a text or a PNG"),
            (line(part=EMPTY, png="*"), "base64"),
            (png_line(b"no picture"), "no PNG file"),
            (png_line(PNG[:-30]), "no PNG file"),
            (png_line(HUGE_PNG), "60000 x 60000|damaged"),
            (
                line(call="y", messages=[{"role": "user", "text": "0" * 32, "png": None}]),
                "no line before it has the text",
            ),
            (line(call="y", messages=[{"role": "wizard", "text": EMPTY, "png": None}]), "role: "),
            (line(call="y", messages=[{"role": "user", "text": EMPTY}]), "png: "),
            (line(call="y", schema="a text"), "schema: "),
            (line(call="y", schema="0" * 32), "no line before it has the text"),
            (line(call="y", outcome="splendid"), "outcome: "),
            (line(call="y", stage="third"), "stage: "),
            (line(call="y", status=...), "status: "),
            (line(call="y", prompt_tokens=2**63), "prompt_tokens needs more than 64 bits"),
            (line(call="y", prompt_tokens="12"), "prompt_tokens: .*'12'"),
            (line(call="y", prompt_tokens=True), "prompt_tokens: "),
            (line(call="y", cost_usd=float("inf")), "cost_usd: "),
            (line(call="y", latency_s=None), "latency_s: "),
        ],
    )
    def test_a_broken_line_is_named_and_nothing_is_added(self, store, broken, told):
        text = HEADER + "\n".join([line(part=EMPTY, text=""), line(call="uid"), line(answer="good"), broken])
        with pytest.raises(
            StoreError, match=f"(?is)^line 5 of the import is broken: .*({told}).*Nothing was added"
        ) as caught:
            load(store, text)
        assert len(str(caught.value)) < 500
        assert "\n" not in str(caught.value)
        assert contents(store) == ([], [])

    def test_a_line_without_end_is_read_no_further_than_the_cap(self, store, monkeypatch):
        monkeypatch.setattr(jsonl, "MAX_LINE", 1000)
        with pytest.raises(StoreError, match="line 2 .*longer than 1,000 characters"):
            load(store, HEADER + "x" * 5000)

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/zero, and reads memory as Linux counts it")
    @pytest.mark.parametrize("header", [b"", HEADER.encode()])
    def test_endless_zeros_take_neither_memory_nor_time(self, tmp_path, header):
        """`lvlm2p store import /dev/zero` took 9 GB."""
        code = """
import re, sys
from pathlib import Path
from lvlm2p_wrappers.cli import main
status = main(["store", "import", sys.argv[1], "--store", sys.argv[2]])
# Not getrusage: it counts what the process that started this one had.
print(status, int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""
        if header:
            file = tmp_path / "fifo"
            os.mkfifo(file)

            def feed():
                with file.open("wb") as fifo:
                    fifo.write(header)
                    try:
                        while True:
                            fifo.write(bytes(2**20))
                    except BrokenPipeError:
                        pass

            threading.Thread(target=feed, daemon=True).start()
        else:
            file = "/dev/zero"
        command = [sys.executable, "-c", code, str(file), str(tmp_path / "store.sqlite")]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=True)
        status, megabytes = map(int, done.stdout.split())
        assert status == 2
        assert megabytes < 1000
        assert "longer than" in done.stderr if header else "no export" in done.stderr
        assert done.stderr.count("\n") == 1
