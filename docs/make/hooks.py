"""What mkdocs adds to docs/: files of the repository, references, formulas.

Nothing of it is committed: each page is made from what the package itself says.
"""

import pathlib
import re
import sys

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

# ruff: noqa: E402
from docs.make.commands import commands_page
from hccm_tf.flags.reference import reference
from hccm_tf.models import CHOICES

TUTORIAL = ROOT / "build" / "tutorial"
# Pages that stand elsewhere in the repository: file -> page.
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
}
# Links between pages to files that are pages under other names.
PAGES = {
    "../README.md": "index.md",
    "../benchmarks/README.md": "benchmarks.md",
    "tutorial.py": "tutorial.md",
}


def on_files(files, config):
    """Adds the pages that are made."""
    made = {page: _of_repository(file) for file, page in ELSEWHERE.items()}
    made["reference/flags.md"] = reference(CHOICES.values())
    made["reference/commands.md"] = commands_page(ROOT)
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    if not (TUTORIAL / "tutorial.md").exists():
        raise PluginError("build/tutorial/tutorial.md is not there: run make docs")
    for path in TUTORIAL.rglob("*"):
        name = path.relative_to(TUTORIAL)
        if path.is_file() and name.parts[0] != "run":
            made = File.generated(config, str(name), abs_src_path=str(path))
            files.append(made)
    return files


def on_page_markdown(markdown, **kwargs):
    """Renders formulas, without a script, and points links at pages.

    Both are written so that the files of the repository read well by themselves.
    """
    del kwargs
    for file, page in PAGES.items():
        markdown = markdown.replace(f"]({file})", f"]({page})")
    markdown = re.sub(
        r"^```math\n(.*?)\n```$",
        lambda found: f'<div class="math">{convert(found[1], display="block")}</div>',
        markdown,
        flags=re.DOTALL | re.MULTILINE,
    )
    # In a span, as a line that begins with `<math>` would be a paragraph of its own.
    return re.sub(
        r"\$`([^`]+)`\$",
        lambda found: f"<span>{convert(found[1])}</span>",
        markdown,
    )


def _of_repository(file):
    """The text of a file with links that hold in the site."""
    text = (ROOT / file).read_text().replace("](docs/", "](")
    for other, page in ELSEWHERE.items():
        text = text.replace(f"]({other})", f"]({page})")
    return text
