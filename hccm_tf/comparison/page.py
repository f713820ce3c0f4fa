"""The report of a comparison as one page of HTML that loads nothing."""

import html
import re
import string

from hccm_tf.comparison.sections import Plot, Table, sections

STYLE = """
body { margin: 0; background: #f4f5f7; color: #1f2933;
  font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 24px; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 10px; }
p { margin: 8px 0; max-width: 75ch; overflow-wrap: anywhere; }
section { background: #fff; border: 1px solid #e1e5ea; border-radius: 10px;
  margin: 20px 0; padding: 18px 20px; }
.scroll { overflow-x: auto; margin: 8px 0; }
table { border-collapse: collapse; font-size: 13px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 4px 14px 4px 0; text-align: left; white-space: nowrap; }
th { border-bottom: 1px solid #cbd2d9; font-weight: 600; }
tr + tr td { border-top: 1px solid #eef0f3; }
.plots { display: flex; flex-wrap: wrap; gap: 12px 24px; margin-top: 12px; }
.plots img { width: 520px; max-width: 100%; height: auto; }
@media (max-width: 600px) {
  section { padding: 14px 12px; }
  td:first-child { white-space: normal; min-width: 14ch; }
}
"""

PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
$verdicts
$sections
</main>
</body>
</html>
""")


def render(result, plots):
    """The page as text.

    Args:
        result: dict of `hccm_tf.comparison.results.collect`.
        plots: dict of `hccm_tf.comparison.plots.draw`; a section is without those that
            are not there.
    """
    (title, verdicts), *rest = sections(result)
    return PAGE.substitute(
        title=html.escape(title),
        style=STYLE,
        verdicts=_parts(verdicts, plots),
        sections="\n".join(
            f"<section>\n<h2>{html.escape(heading)}</h2>\n"
            f"{_parts(parts, plots)}\n</section>"
            for heading, parts in rest
        ),
    )


def _parts(parts, plots):
    drawn = [part for part in parts if isinstance(part, Plot) and part.name in plots]
    written = [part for part in parts if not isinstance(part, Plot)]
    lines = [
        _table(p) if isinstance(p, Table) else f"<p>{_inline(p)}</p>" for p in written
    ]
    images = [
        f'<img src="{plots[plot.name]}" alt="{html.escape(plot.shows)}">'
        for plot in drawn
    ]
    if images:
        lines += ['<div class="plots">', *images, "</div>"]
    return "\n".join(lines)


def _table(table):
    head = "".join(f"<th>{_inline(cell)}</th>" for cell in table.header)
    rows = "\n".join(
        f"<tr>{''.join(f'<td>{_inline(cell)}</td>' for cell in row)}</tr>"
        for row in table.rows
    )
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _inline(text):
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(str(text)))
