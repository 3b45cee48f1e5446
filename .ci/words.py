"""
Check the texts of the package and its documentation for wording that reads badly.

Usage: ``python .ci/words.py [FILE ...]``; prints one line per finding and exits with 1 if there are any. Without
arguments it reads the package, ``docs/``, the example DAGs, README, CONTRIBUTING and CHANGELOG.

Of Python files it reads docstrings, comments and string literals with more than one word; of Markdown files everything
outside of code. The list is short on purpose: each pattern has a plain replacement, and good sentences must pass.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
READ = ("airflow_provider_emqx/**/*.py", "docs/*.md", "example_dags/*.py", "*.md")

#: how a docstring must not begin, and what to write instead
BEGINNINGS = [
    (r"(Give|Gives|Tell|Tells)\b", "begin with Return, Yield, List, Report or Check"),
    (r"(What|Who|Whom|How)\b", "begin with a verb or a noun: Return how …, Facts about …"),
]

#: what may follow "no": "is no longer", "are no more than", "there is no need to" are good English
GOOD = r"(longer|more|less|fewer|later|earlier|different|need|reason|guarantee|way|limit)\b"

#: what no text may say, and what to write instead
PHRASES = [
    (
        rf"\bthere (is|are|was|were) no (?!{GOOD})",
        "say what is missing: 'X has no …', 'X not found', 'unknown X'",
    ),
    (r"\b(is|are|was|were) none\b(?! of\b)", "say what it is instead: 'rows without X create …'"),
    (r"\bno such\b(?! file\b)", "write 'unknown X' or 'X not found'"),
    (rf"(?<!there )\b(is|are|was|were) no (?!{GOOD})[a-z]", "write 'is not a …'"),
    (r"\b(is|are|was|were|be) told\b", "write 'is reported', 'is inferred from' or 'is passed'"),
    (r"\btold (apart|by)\b", "write 'distinguished' or 'inferred from'"),
    (
        r"\b(a|an|one|each|every|first|last|next|this|failed|two|of|per) looks?\b(?! (like|at|up|for)\b)",
        "write 'check'",
    ),
    (r"\blooks? (in a row|that)\b", "write 'check'"),
    (r"\bdoubled\b(?! quotes?\b)", "write 'duplicated'"),
    (r"\bin vain\b", "say what happens instead"),
]


def findings(path: Path) -> Iterator[str]:
    """Yield one line, ``path:line: what was found; what to write instead``, for each finding in a file."""
    source = path.read_text(encoding="utf-8")
    texts = python_texts(source) if path.suffix == ".py" else markdown_texts(source)
    for line, text, beginning in texts:
        for pattern, advice in BEGINNINGS if beginning else ():
            if found := re.match(pattern, text):
                yield f"{path}:{line}: docstring begins with '{found[0]}'; {advice}"
        # a phrase may go over the end of a line
        flat = " ".join(text.split())
        for pattern, advice in PHRASES:
            for found in re.finditer(pattern, flat, flags=re.IGNORECASE):
                yield f"{path}:{line}: '{flat[max(0, found.start() - 20) : found.end() + 10]}'; {advice}"


def python_texts(source: str) -> Iterator[tuple[int, str, bool]]:
    """Yield line, text and whether it is a docstring, of every docstring, comment and literal of several words."""
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(value=ast.Constant(value=str() as text) as constant), *_]:
                    docstrings.add(constant)
                    yield constant.lineno, text.strip(), True
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str() as text) if node not in docstrings and " " in text.strip():
                yield node.lineno, text, False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#: "), False


def markdown_texts(source: str) -> Iterator[tuple[int, str, bool]]:
    """Yield line and text of every paragraph, without code."""
    # code becomes as many empty lines, so that the numbers of lines stay right
    prose = re.sub(
        r"^```.*?^```$", lambda code: "\n" * code[0].count("\n"), source, flags=re.DOTALL | re.MULTILINE
    )
    line = 1
    for paragraph in re.split(r"(\n\s*\n)", prose):
        if paragraph.strip():
            yield line, re.sub(r"`[^`]*`", "``", paragraph), False
        line += paragraph.count("\n")


def main(arguments: list[str]) -> int:
    """Check the files given, or all."""
    paths = [Path(argument) for argument in arguments]
    paths = paths or sorted(path for pattern in READ for path in ROOT.glob(pattern))
    found = [line.replace(f"{ROOT}/", "") for path in paths for line in findings(path)]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
