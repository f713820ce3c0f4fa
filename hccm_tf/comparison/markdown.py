"""The report of a comparison as Markdown: for a terminal, or to paste into a text."""

from hccm_tf.comparison.sections import Plot, Table, sections


def markdown(result):
    """The report without its plots; see `hccm_tf.comparison.results.collect`."""
    parts, level = [], "#"
    for heading, of_section in sections(result):
        parts.append(f"{level} {heading}")
        parts += [_part(part) for part in of_section if not isinstance(part, Plot)]
        level = "##"
    return "\n\n".join(parts) + "\n"


def _part(part):
    if not isinstance(part, Table):
        return part
    lines = [part.header, ["---"] * len(part.header), *part.rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
