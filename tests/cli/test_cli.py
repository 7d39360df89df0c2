"""The command as a whole: help, exit codes, and output that nothing a model says can disturb."""

import os
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvlm2p_wrappers import TransportError, UsageError
from lvlm2p_wrappers.cli import main, store
from lvlm2p_wrappers.cli.printing import plain
from lvlm2p_wrappers.store import Store

COMMANDS = [
    (),
    *((name,) for name in ("preview", "ask", "estimate", "evaluate", "compare", "report", "store")),
    *(("store", action) for action in ("stats", "list", "show", "export", "import", "prune")),
]
RUN = "import sys; from lvlm2p_wrappers.cli import main; sys.exit(main())"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    help_text = capsys.readouterr().out
    assert end.value.code == 0
    assert " ".join(["usage: lvlm2p", *command]) in help_text
    for line in help_text.splitlines():  # a flag stands with its explanation, on its line or the next one
        assert not line.strip().startswith("--") or len(line.split()) > 1


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("lvlm2p 0.")


@pytest.mark.parametrize(
    "wrong", [[], ["nonsense"], ["estimate"], ["store"], ["store", "show", "x"], ["store", "list", "--limit", "0"]]
)
def test_a_wrong_command_line_exits_with_2(wrong):
    with pytest.raises(SystemExit) as end:
        main(wrong)
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("not like this"), 2, "lvlm2p: not like this\n"),
        (TransportError("the provider is down"), 1, "lvlm2p: the provider is down\n"),
        (KeyboardInterrupt(), 130, "lvlm2p: interrupted\n"),
    ],
)
def test_an_error_is_one_line_on_standard_error_and_an_exit_code(monkeypatch, capsys, error, code, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(store.stores, "load", fail)
    assert main(["store", "import", "-"]) == code
    assert capsys.readouterr() == ("", said)


def test_output_that_is_not_read_to_its_end_is_no_error(tmp_path):
    script = f"{RUN.partition(';')[0]}; from lvlm2p_wrappers.cli import main, store\n"
    script += "store.say = lambda *_, **__: sys.stdout.write('x' * 1_000_000)\nsys.exit(main(['store', 'list']))"
    Store(tmp_path / "store.sqlite").close()
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as closed:
        done = subprocess.run([sys.executable, "-c", script], stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_help_needs_neither_litellm_nor_torch(tmp_path):
    script = "import sys; from lvlm2p_wrappers import cli; assert not {'torch', 'litellm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


@given(st.text())
def test_what_is_printed_has_no_control_characters(text):
    assert not {c for c in plain(text) if unicodedata.category(c) in ("Cc", "Cs")} - {"\t", "\n"}
    assert not {c for c in plain(text) if unicodedata.bidirectional(c) in ("LRO", "RLO", "LRE", "RLE", "LRI", "RLI")}


def test_text_without_control_characters_is_printed_as_it_is():
    text = 'Ünïcode — [bold]no markup[/] :smile: {"a": 1}\n\ttabs, 日本語, 🙂'
    assert plain(text) == text
