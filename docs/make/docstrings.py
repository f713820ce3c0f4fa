"""Sections that Keras' docstrings have and Google's style does not know."""

import re

from griffe import Extension


class KerasSections(Extension):
    """Call arguments are listed as arguments are; other sections get a bold title."""

    def on_object(self, *, obj, **kwargs):
        """Rewrites the docstring of an object that was read."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = with_known_sections(obj.docstring.value)


def with_known_sections(text):
    """A docstring, str, in sections that are known.

    Its examples and references are not indented as a section's content is, or are
    fenced, and stay as they are below their title.
    """
    text = re.sub(
        r"^Call arguments:$", "Other Parameters: Call arguments:", text, flags=re.M
    )
    text = re.sub(
        r"^Output:\n((?:    .*\n|\n)*(?:    .*)?)",
        lambda found: f"**Output:** {_dedented(found[1])}",
        text,
        flags=re.M,
    )
    return re.sub(r"^(Example|References):\n", r"**\1:**\n\n", text, flags=re.M)


def _dedented(text):
    return re.sub("^    ", "", text, flags=re.M).lstrip()
