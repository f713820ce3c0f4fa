"""The pages: what `make docs-test` reads in them, and what README may not outgrow."""

import ast
import pathlib
import re

import pytest

from docs.make.run_examples import blocks, pages, run_block
from tests import processes

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def test_blocks_are_read_with_their_marks():
    page = """# Page
<!-- prepare
make shop
-->
<!-- not run: needs a server -->
```bash
ask
```
<!-- run with: --small -->
```bash
train \\
    --much
```
```text
no command
```
```python
x = 1
```
"""
    assert blocks(page) == [
        (2, "bash", "make shop\n", None),
        (5, "bash", "ask\n", "needs a server"),
        (9, "bash", "train \\\n    --much --small", None),
        (17, "python", "x = 1", None),
    ]


def test_each_page_is_typed_once():
    names = [page.relative_to(ROOT).as_posix() for page in pages()]
    assert len(set(names)) == len(names)
    assert {"docs/layers.md", "docs/serving.md", "README.md"} < set(names)


def test_a_block_that_fails_says_why():
    names = {}
    assert run_block("python", "x = 1", names) is None
    assert run_block("python", "print('seen')\nassert x == 2", names).startswith("seen")
    assert run_block("bash", "true", names) is None
    assert run_block("bash", "echo seen\nfalse\necho not", names) == "seen\n"
    assert run_block("bash", "echo seen; false | true", names) == "seen\n"


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.stem)
def test_every_command_is_in_a_block_that_is_run_or_says_why_not(page):
    text = page.read_text()
    fences = FENCE.findall(text)
    known = ("```bash\n", "```python\n", "```text\n", "```math\n")
    assert all(fence.startswith(known) for fence in fences)
    commands = [fence for fence in fences if fence.startswith(known[:2])]
    read = [code for _, _, code, _ in blocks(text)]
    assert len(read) == len(commands) + text.count("<!-- prepare\n")
    # Four spaces would make a block that nothing runs.
    assert not re.search(r"^ {4}(python|pip|make|curl) ", FENCE.sub("", text), re.M)


MODULES = [
    ROOT / "train_main.py",
    *(
        path
        for folder in ("hccm_tf", "tfrecords_tools", "benchmarks", "tests")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ),
]


def test_commands_in_docstrings_can_be_pasted():
    """A backslash at the end of a line would join it with the next, without `r`."""
    commands = 0
    for path in MODULES:
        text = ast.get_docstring(ast.parse(path.read_text()), clean=False) or ""
        found = re.findall(r"^ *python .*", text, re.M)
        assert not [line for line in found if "  " in line.strip()], path
        commands += len(found)
    assert commands > 40


def test_the_page_of_commands():
    code = "from docs.make.commands import *; import pathlib; "
    code += "print(commands_page(pathlib.Path()))"
    page = processes.run(["-c", code], cwd=ROOT, check=True).stdout
    rows = re.findall(r"^\| `--.*", page, re.M)
    assert len(rows) > 80
    for row in rows:
        cells = re.split(r"(?<!\\)\|", row)
        assert len(cells) == 5 and "``" not in row and "<" not in row
    assert "of &lt;name>/&lt;version>/ of each model" in page
    blocks = "".join(re.findall(r"^```text\n(.*?)^```$", page, re.DOTALL | re.M))
    commands = blocks.replace("\\\n", "").splitlines()
    assert all(line.startswith("python ") for line in commands if line)


def test_all_pages_are_run():
    assert set(ROOT.glob("docs/*.md")) | {README} < set(pages())


def test_readme_is_short():
    assert README.read_text().count("\n") <= 150


def test_readme_links_to_what_is_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text())
    assert len(links) > 10
    for link in links:
        assert (ROOT / link).exists(), link
