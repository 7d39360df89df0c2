"""The command as a whole: help, exit codes, streams that fail, and what was mistyped."""

import inspect
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lvlm2p_wrappers import TransportError, UsageError
from lvlm2p_wrappers.cli import main, store
from lvlm2p_wrappers.cli.main import LVLM2P, STORE
from lvlm2p_wrappers.store import Store

LAVA = "MiniGrid-LavaGapS5-v0"
PLANNER = "embedded/minigrid-planner"
RUN = [sys.executable, "-c", "import sys; from lvlm2p_wrappers.cli import main; sys.exit(main())"]
COMMANDS = [(name,) for name in LVLM2P.commands if name != "store"] + [("store", name) for name in STORE.commands]


def run(*args, **options):
    """Runs ``lvlm2p`` in a process of its own."""
    return subprocess.run([*RUN, *map(str, args)], capture_output=True, text=True, timeout=120, **options)


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_every_command_explains_itself_and_its_flags(self, command, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        assert main([*command, "--help"]) == 0
        told = capsys.readouterr().out
        assert " ".join(["usage: lvlm2p", *command]) in told
        kind = (STORE.commands if len(command) == 2 else LVLM2P.commands)[command[-1]]
        for line in inspect.cleandoc(kind.__doc__).splitlines():
            assert line.strip() in told
        for flag in kind.__dataclass_fields__:
            assert f"--{flag.replace('_', '-')}" in told or flag.upper() in told or flag in ("first", "second")
        assert "\x1b" not in told
        assert all(len(line) <= 80 for line in told.splitlines() if not line.startswith(("    lvlm2p ", "usage: ")))

    @pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["store"], ["store", "--help"]])
    def test_alone_it_lists_the_commands(self, words, capsys):
        assert main(words) == 0
        told = capsys.readouterr().out
        for name in STORE.commands if "store" in words else LVLM2P.commands:
            assert f"\n  {name} " in told

    def test_it_begins_with_a_command_that_works_without_a_key(self, capsys):
        main([])
        (example,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("  lvlm2p "))
        assert main(example.split()[1:]) == 0

    def test_the_version_is_that_of_the_package(self, capsys):
        assert main(["--version"]) == 0
        assert capsys.readouterr().out.startswith("lvlm2p 0.")

    def test_help_needs_neither_litellm_nor_torch(self, tmp_path):
        code = (
            "import sys; from lvlm2p_wrappers import cli; assert not {'torch', 'litellm', 'scipy'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


class TestExitCodes:
    @pytest.mark.parametrize(
        ("error", "code", "told"),
        [
            (UsageError("not like this"), 2, "lvlm2p: not like this\n"),
            (UsageError("first line,\nsecond\x1b[2J\u202e"), 2, "lvlm2p: first line, second\n"),
            (TransportError("the provider is down"), 1, "lvlm2p: the provider is down\n"),
            (KeyboardInterrupt(), 130, "lvlm2p: interrupted\n"),
        ],
    )
    def test_an_error_is_one_line_on_standard_error_and_an_exit_code(self, monkeypatch, capsys, error, code, told):
        """A provider's terminal escapes reach the terminal by way of an error."""

        def fail(*_, **__):
            raise error

        monkeypatch.setattr(store.stores, "load", fail)
        assert main(["store", "import", "-"]) == code
        assert capsys.readouterr() == ("", told)

    def test_output_that_is_not_read_to_its_end_is_no_error(self, tmp_path):
        Store(tmp_path / "store.sqlite").close()
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer) as closed:
            done = subprocess.run([*RUN, "store", "stats"], stdout=closed, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, done.stderr) == (141, "")

    @pytest.mark.skipif(sys.platform != "linux", reason="reads which signals a process handles as Linux tells it")
    def test_sigterm_ends_it_like_ctrl_c(self):
        command = [
            *RUN,
            "estimate",
            LAVA,
            "--model",
            PLANNER,
            "--total-timesteps",
            "900000000",
            "--frames",
            "900000000",
        ]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            while not _handles(process.pid, signal.SIGTERM):
                time.sleep(0.1)
            time.sleep(1)
            process.send_signal(signal.SIGTERM)
            assert process.communicate(timeout=60)[1] == "lvlm2p: interrupted\n"
        assert process.returncode == 130


def _handles(pid, number):
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
    return bool(int(caught, 16) >> (number - 1) & 1)


class TestPatience:
    """Mistakes and failing streams end in one line and an exit code; each of these once ended in a traceback."""

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["nonsense"], "there is no command 'nonsense' of lvlm2p"),
            (["estimte"], "did you mean lvlm2p estimate?"),
            (["store", "lst"], "did you mean lvlm2p store list?"),
            (["estimate"], "ENV_ID"),
            (["estimate", LAVA, "--modle", PLANNER], "--model"),
            (["store", "show", "x"], "'x' is not a whole number from 1 to 1,000,000,000"),
            (["store", "list", "--limit", "0"], "--limit: '0' is not a whole number"),
            (["store", "list", "--limit", "99999999999999999999"], "is not a whole number"),
            (["store", "list", "--outcome", "None"], "--outcome"),
            (["store", "prune", "--older-than-days", "nan"], "'nan' is not a number"),
            (["preview", LAVA, "--seed", "-1"], "--seed"),
            (["preview", ":x"], "':x' names no environment"),
            (["preview", "a:b:c"], "'a:b:c' names no environment"),
            (["preview", "x:"], "names no environment"),
            (["preview", ""], "cannot be made"),
            (["preview", "a/b/c"], "cannot be made"),
            (["preview", "no_such_module:X-v0"], "No module named"),
            (["preview", "..:X-v0"], "cannot be made"),
            (["preview", LAVA, "--prompts", "x" * 300], "xxx"),
            (["preview", LAVA, "--store", "x" * 300], "File name too long"),
            (["preview", LAVA, "--save", "x" * 300], "File name too long"),
            (["store", "stats", "--store", "x" * 300], "File name too long"),
            (["store", "import", "x" * 300], "File name too long"),
            (["store", "import", "."], "is a folder"),
            (["store", "import", ""], "is a folder"),
            (["store", "export", ""], "is a folder"),
            (["store", "export", "."], "is a folder"),
            (["store", "export", "x" * 300], "File name too long"),
            (["report", "--store", "-o", "."], "is a folder"),
            (["report", "--store", "-o", "/dev/null"], "is a device"),
            (["report", "x" * 300], "File name too long"),
            (["report", "--store", "a", "b"], "--store takes one file"),
        ],
        ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
    )
    def test_a_mistake_is_one_line_that_names_it(self, words, told, capsys, tmp_path, store_with_a_call):  # noqa: ARG002
        assert main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line

    @pytest.fixture
    def store_with_a_call(self, tmp_path):
        from tests.store.store_samples import ANSWER, CALL

        with Store(tmp_path / "store.sqlite") as filled:
            filled.record(CALL, ANSWER)

    @pytest.mark.parametrize(
        "words", [["--help"], ["store", "list"], ["store", "export", "-"], ["store", "list", "--help"]]
    )
    def test_a_full_disk_behind_standard_output_is_one_line(self, words, store_with_a_call):  # noqa: ARG002
        with Path("/dev/full").open("w") as full:
            done = subprocess.run([*RUN, *words], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.stderr == "lvlm2p: the output cannot be written: No space left on device\n"
        assert done.returncode == 1

    @pytest.mark.parametrize(
        "words",
        [
            ["ask", LAVA, "--model", PLANNER, "--store", "new.sqlite"],
            ["store", "export", "labels.jsonl"],
            ["report", "--store", "-o", "page.html"],
            ["preview", LAVA, "--save", "saved"],
        ],
        ids=lambda words: words[0],
    )
    def test_a_disk_that_is_full_is_one_line_and_leaves_no_half_file(self, words, tmp_path, store_with_a_call):  # noqa: ARG002
        """A limit on the size of files stands for the disk: what is written beyond it fails in the same way."""
        done = subprocess.run(
            ["bash", "-c", 'ulimit -f 1; "$@"', "bash", *RUN, *words], capture_output=True, text=True, timeout=120
        )
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("lvlm2p: ")
        assert done.returncode == 2
        assert not [
            path.name for path in tmp_path.rglob("*") if path.name.endswith((".part", ".jsonl", ".html", ".png"))
        ]

    def test_json_that_is_nested_without_an_end_is_one_line(self, tmp_path, capsys):
        deep = "[" * 200_000
        (tmp_path / "deep.jsonl").write_text(f'{{"lvlm2p_store": 1}}\n{deep}\n')
        (tmp_path / "first.jsonl").write_text(deep)
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "evaluation.json").write_text(deep)
        for words in (["store", "import", "deep.jsonl"], ["store", "import", "first.jsonl"], ["report", "folder"]):
            assert main(words) == 2
            assert len(capsys.readouterr().err.splitlines()) == 1

    @pytest.mark.parametrize(
        ("closed", "code", "told"),
        [(">&-", 1, "lvlm2p: standard output is closed: nothing can be printed\n"), ("2>&-", 0, ""), ("<&-", 0, "")],
    )
    def test_a_closed_stream_is_told_where_there_is_somebody_to_tell(self, closed, code, told):
        done = subprocess.run(["bash", "-c", f'"$@" {closed}', "bash", *RUN, "--help"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (code, told)

    def test_a_terminal_that_is_not_utf8_gets_what_it_can_show(self):
        environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
        assert main(["ask", LAVA, "--model", PLANNER]) == 0  # the answer is in the store now
        done = run("ask", LAVA, "--model", PLANNER, env=environment)
        assert done.returncode == 0, done.stderr
        assert "turn_left   0." in done.stdout
        assert run("ask", "--help", env=environment).returncode == 0

    @pytest.mark.parametrize("columns", ["1", "0", "x", "100000"])
    def test_any_width_of_the_terminal_is_taken(self, columns, monkeypatch, capsys, store_with_a_call):  # noqa: ARG002
        monkeypatch.setenv("COLUMNS", columns)
        for words in (["store", "list"], ["store", "stats"], ["--help"], ["ask", "--help"]):
            assert main(words) == 0
        assert main(["ask"]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
