"""
Copy the example DAGs into the pages that show them.

A page shows a DAG as a link to its file, ``[`name.py`](../example_dags/name.py):``, followed by a block of Python. The
block holds the file from its first import on, without the docstring.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
SHOWN = re.compile(
    r"(?P<link>\]\(\.\./example_dags/(?P<name>\w+)\.py\):\n\n```python\n)(?P<code>.*?)(?P<end>^```$)",
    re.DOTALL | re.MULTILINE,
)


def code(name: str) -> str:
    """Return an example DAG from its first import on."""
    source = (ROOT / "example_dags" / f"{name}.py").read_text(encoding="utf-8")
    return source.partition("from __future__ import annotations\n\n")[2]


def with_examples(page: str) -> str:
    """Return the text of a page with every example DAG as its file has it."""
    return SHOWN.sub(lambda block: block["link"] + code(block["name"]) + block["end"], page)


def main() -> None:
    """Write the pages."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(with_examples(text), encoding="utf-8")


if __name__ == "__main__":
    main()
