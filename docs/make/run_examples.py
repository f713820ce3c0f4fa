"""Runs every command and Python snippet of the pages, as a reader would type them.

    python -m docs.make.run_examples

All pages are typed in one new folder, one after the other: what a page makes, later
ones find. Snippets of a page share their names. Before a block may stand

    <!-- not run: why -->
    <!-- run with: --flags that make the command small, put at its end -->

and `<!-- prepare`, commands, `-->` makes what a page says that its reader has. The exit
code is 1 if a block failed.
"""

import contextlib
import io
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).parents[2]
# What a reader has: the repository.
GIVEN = ("configs", "hccm_tf", "tfrecords_tools", "train_main.py")
BLOCK = re.compile(
    r"^<!-- prepare\n(?P<prepare>.*?)^-->$"
    r"|(?:^<!-- (?P<mark>not run|run with): (?P<words>[^\n]+) -->\n)?"
    r"^```(?P<language>bash|python)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def pages():
    """Paths of the pages, in the order in which they are typed."""
    named = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    found = [ROOT / "docs" / name for name in named if (ROOT / "docs" / name).exists()]
    return [*found, ROOT / "README.md", ROOT / "benchmarks" / "README.md"]


def blocks(text):
    """What stands in a page: list of `(line, language, code, reason not to run)`."""
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        mark, words = match["mark"], match["words"]
        if match["prepare"]:
            found.append((line, "bash", match["prepare"], None))
        elif mark == "not run":
            found.append((line, match["language"], match["code"], words))
        else:
            code = match["code"].rstrip() + (f" {words}" if mark else "")
            found.append((line, match["language"], code, None))
    return found


def run_block(language, code, names):
    """What a block printed if it failed, else `None`.

    Args:
        language: `"bash"` or `"python"`.
        code: str.
        names: dict, the names of the page's earlier snippets.
    """
    if language == "python":
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(code, names)
        except Exception:
            return printed.getvalue() + traceback.format_exc()
        return None
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.stdout if done.returncode else None


def run_page(page):
    """Runs the blocks of a page, a `pathlib.Path`, here; list of what failed."""
    failed, names = [], {}
    for line, language, code, reason in blocks(page.read_text()):
        place = f"{page.relative_to(ROOT)}:{line}"
        if reason is not None:
            print(f"{place}: not run: {reason}", flush=True)
            continue
        start = time.monotonic()
        error = run_block(language, code, names)
        said = "failed" if error is not None else "ran"
        print(f"{place}: {said} in {time.monotonic() - start:.0f} s", flush=True)
        if error is not None:
            failed.append(place)
            print(f"{code}\n{error[-4000:]}", flush=True)
    return failed


def main():
    """Runs all pages."""
    # What commands set, and the pages tell of.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with tempfile.TemporaryDirectory() as folder:
        for name in GIVEN:
            (pathlib.Path(folder) / name).symlink_to(ROOT / name)
        os.chdir(folder)
        failed = [place for page in pages() for place in run_page(page)]
        os.chdir(ROOT)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
    print("all that is run works")


if __name__ == "__main__":
    main()
