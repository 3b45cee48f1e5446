"""The check of words finds what it is there to find, and lets good sentences pass."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / ".ci" / "words.py"

_spec = importlib.util.spec_from_file_location("words", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
words = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(words)


def check(tmp_path: Path, name: str, text: str) -> list[str]:
    """Return what the check finds in a file, without its path."""
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return [line.removeprefix(f"{file}:") for line in words.findings(file)]


def test_the_texts_pass() -> None:
    run = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(
    "sentence",
    [
        "There is no condition 'x'.",
        "A user whose row has no flag is none.",
        "X is no operator.",
        "No such client.",
        "The format is told by the suffix.",
        "Two that look the same are told apart by their ids.",
        "Looks that may fail in a row.",
        "It is repeated at every look.",
        "None lost, none doubled.",
        "The sentence goes over the end\nof a line, where there\nis no clause.",
    ],
)
def test_what_reads_badly_is_found(tmp_path: Path, sentence: str) -> None:
    assert check(tmp_path, "page.md", f"# Page\n\n{sentence}\n")
    assert check(tmp_path, "module.py", f'def f():\n    """\n    Return it.\n\n    {sentence}\n    """\n')
    assert check(tmp_path, "literal.py", f"x = {sentence!r}\ny = f'{{x}} failed: {sentence.split()[0]}'\n")
    assert check(tmp_path, "comment.py", "".join(f"# {line}\n" for line in sentence.split("\n")))


@pytest.mark.parametrize(
    "beginning", ["Give the rows.", "Tell whether it is so.", "How it is done.", "What it holds."]
)
def test_how_a_docstring_must_not_begin_is_found(tmp_path: Path, beginning: str) -> None:
    (found,) = check(tmp_path, "module.py", f'def f():\n    """{beginning}"""\n')
    assert found.startswith("2: docstring begins with ")
    # a comment or a sentence may
    assert check(tmp_path, "comment.py", f"x = 1  # {beginning}\n") == []


@pytest.mark.parametrize(
    "sentence",
    [
        "There is no need to restart the broker.",
        "The user is no longer in the file.",
        "There are no more than ten of them.",
        "The check looks at the newest message.",
        "It looks for a file and looks up the connection.",
        "A quote inside quotes is written twice; use doubled quotes.",
        "The row has no password.",
        "Users without a flag are regular users, and none of them is deleted.",
        "Tell the broker to stop.",
        "What differs between versions is in the table.",
    ],
)
def test_good_sentences_pass(tmp_path: Path, sentence: str) -> None:
    assert check(tmp_path, "page.md", f"# Page\n\n{sentence}\n") == []
    assert (
        check(tmp_path, "module.py", f'def f():\n    """\n    Return it.\n\n    {sentence}\n    """\n') == []
    )


def test_code_of_a_page_is_left_alone_and_lines_are_right(tmp_path: Path) -> None:
    text = "# Page\n\n```text\nthere is no such thing\n```\n\n`there is no x` is what it said.\n\nIt is no good.\n"
    (found,) = check(tmp_path, "page.md", text)
    assert found.startswith("9: ")


def test_one_word_is_no_text(tmp_path: Path) -> None:
    assert check(tmp_path, "module.py", "x = 'doubled'\n") == []
