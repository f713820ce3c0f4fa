"""The page: what `hccm_tf.explanation.values` holds, as HTML for people to read."""

import html
import string

import numpy as np

from hccm_tf.data.feature import HISTORY, HISTORY_IMAGE
from hccm_tf.explanation.pictures import data_uri
from hccm_tf.explanation.values import text

NARROW, WIDE = 28, 92  # pixels, of the picture with the least and the most attention
CHANNELS = 8
TITLES = {"image_attention": "image attention", "history_attention": "item attention"}

STYLE = """
body { margin: 0; background: #f4f5f7; color: #1f2933;
  font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 0; }
h3 { font-size: 14px; margin: 20px 0 4px; }
p { margin: 4px 0; } .note { color: #5f6c7b; font-size: 13px; max-width: 75ch; }
article { background: #fff; border: 1px solid #e1e5ea; border-radius: 10px;
  margin: 20px 0; padding: 18px 20px; }
header { display: flex; gap: 18px; align-items: center; }
img { border-radius: 5px; display: block; aspect-ratio: 1; background: #e7eaee; }
img.missing { outline: 1px dashed #9aa5b1; outline-offset: -1px; }
header img { width: 112px; }
.ctr { display: flex; gap: 10px; align-items: center; flex-wrap: wrap; }
.track { width: 160px; height: 8px; border-radius: 4px; background: #e7eaee; }
.fill { height: 100%; border-radius: 4px; background: #2f6fb5; }
.label { border-radius: 10px; padding: 1px 10px; font-size: 13px; background: #e7eaee; }
.clicked { background: #d8efdc; color: #175c2a; }
.strip { display: flex; flex-wrap: wrap; gap: 8px 5px; align-items: flex-end;
  list-style: none; margin: 8px 0 0; padding: 0; }
.strip li { font-size: 10px; color: #5f6c7b; text-align: center; }
.strip img { margin: 0 auto; }
.bar { width: 28px; height: 4px; margin: 3px auto 0; background: #f3e3d0; }
.bar div { height: 100%; background: #d98324; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 3px 18px 3px 0; text-align: left; white-space: nowrap; }
th { border-bottom: 1px solid #e1e5ea; font-weight: 600; }
th small { display: block; color: #5f6c7b; font-weight: 400; }
.cell { display: flex; gap: 7px; align-items: center; }
.cell img { width: 26px; image-rendering: pixelated; border-radius: 2px; }
.cell img + span { min-width: 3ch; text-align: right; }
.cell .track { width: 46px; height: 6px; }
.up { color: #175c2a; } .down { color: #a3312b; } .same { color: #9aa5b1; }
"""

PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What $model looked at</title>
<style>$style</style>
</head>
<body>
<main>
<h1>What $model looked at</h1>
<p class="note">The first $count impressions of the test split. The numbers are the
model's own; what a user had in mind, they do not say.</p>
$impressions
</main>
</body>
</html>
""")

IMPRESSION = string.Template("""<article>
<header>
$picture
<div>
<h2>$number. $candidate</h2>
<div class="ctr">predicted CTR <b>$ctr</b>
<div class="track"><div class="fill" style="width: $percent%"></div></div>
$label</div>
</div>
</header>
$history
$channels
</article>""")

STRIP = string.Template("""<h3>$clicks clicks before, oldest first</h3>
<p class="note">$legend</p>
<ol class="strip">
$pictures
</ol>""")

TABLE = string.Template("""<h3>The same picture under other categories</h3>
<p class="note">The channels of the candidate's feature map that get the highest channel
attention, each with its map, its number, its weight and how many ranks it moved against
the candidate's own category. ρ is the rank correlation over all $count channels.</p>
<div class="scroll"><table>
<thead><tr>$head</tr></thead>
<tbody>
$rows
</tbody>
</table></div>""")


def render(model, impressions, pictures):
    """The page as text.

    Args:
        model: the model's name.
        impressions: list of `Explained`.
        pictures: dict from an image's name to its `data:` URI.
    """
    return PAGE.substitute(
        model=html.escape(model),
        style=STYLE,
        count=len(impressions),
        impressions="\n".join(
            _impression(number, impression, pictures)
            for number, impression in enumerate(impressions, start=1)
        ),
    )


def shares(weights):
    """Numbers from 0 to 1 that rise with the weights, 1 for the largest above 0.

    0 is a weight of 0, or the smallest if there are negative ones, as DIN's may be.
    """
    low, high = (extreme(weights, initial=0.0) for extreme in (np.min, np.max))
    return ((np.float64(weights) - low) / ((high - low) or 1.0)).tolist()


def ranks(weights):
    """Each channel's rank by its weight, 0 for the highest."""
    return np.argsort(np.argsort(-np.asarray(weights), kind="stable"))


def _impression(number, explained, pictures):
    row = explained.row
    words = _words(row, "item_id", "category")
    label = ("not clicked", "clicked")[explained.label]
    return IMPRESSION.substitute(
        number=number,
        candidate=html.escape(words),
        picture=_picture(row["image"][0], words, pictures),
        ctr=f"{explained.ctr:.3f}",
        percent=f"{100 * explained.ctr:.1f}",
        label=f'<span class="label {label.replace(" ", "-")}">{label}</span>',
        history=_history(explained, pictures),
        channels=_channels(explained) if explained.channels else "",
    )


def _words(row, item, category, place=0):
    """An item as words: its id and its category, as far as the data have them."""
    words = [text(row[name][place]) for name in (item, category) if name in row]
    if item in row:
        words[0] = f"item {words[0]}"
    return ", ".join(words) or "item"


def _picture(name, words, pictures, attributes=""):
    uri = pictures.get(text(name))
    if uri is None:
        words, attributes = f"{words}, no picture", f'class="missing" {attributes}'
    uri = uri or data_uri(np.full((1, 1), 231, np.uint8))
    return f'<img src="{uri}" alt="{html.escape(words)}" {attributes}>'


def _history(explained, pictures):
    row, attention = explained.row, explained.attention
    clicks = len(row[HISTORY_IMAGE])
    if not clicks:
        return "<h3>No click before</h3>"
    # The first sizes the pictures, the others are bars below them.
    names = sorted(attention, key=lambda name: name != "image_attention")
    titles = [TITLES.get(name, name.replace("_", " ")) for name in names]
    sizes = [shares(attention[name]) for name in names]
    entries = []
    for i in range(clicks):
        words = _words(row, f"{HISTORY}item_id", f"{HISTORY}category", i)
        values = [
            f"{title} {attention[name][i]:.4f}"
            for title, name in zip(titles, names, strict=True)
        ]
        picture = _picture(
            row[HISTORY_IMAGE][i],
            words,
            pictures,
            f'style="width: {NARROW + (WIDE - NARROW) * sizes[0][i]:.2f}px" '
            f'title="{html.escape("; ".join([words, *values]))}"',
        )
        bars = "".join(
            f'<div class="bar"><div style="width: {100 * size[i]:.1f}%"></div></div>'
            f"{attention[name][i]:.3f}"
            for name, size in zip(names[1:], sizes[1:], strict=True)
        )
        entries.append(f"<li>{picture}{attention[names[0]][i]:.3f}{bars}</li>")
    legend = _legend({t: attention[n] for n, t in zip(names, titles, strict=True)})
    return STRIP.substitute(
        clicks=clicks, legend=html.escape(legend), pictures="\n".join(entries)
    )


def _legend(weights):
    """What size, bars and numbers are; weights by what their attention is called."""
    first, *others = weights
    legend = f"Size and the number below: {first}."
    if others:
        legend += f" Bar and the number below: {', '.join(others)}."
    for title, values in weights.items():
        if np.min(values) < 0 or not np.isclose(np.sum(values), 1, atol=1e-3):
            legend += f" The {title} is not normalised"
            legend += " and may be negative." if np.min(values) < 0 else "."
    return legend


def _channels(explained):
    columns = {name: ranks(weights) for name, weights in explained.channels.items()}
    own = next(iter(columns))
    head = f"<th>{html.escape(own)} <small>its own</small></th>"
    for name, rank in list(columns.items())[1:]:
        rho = np.corrcoef(columns[own], rank)[0, 1]
        head += f"<th>{html.escape(name)} <small>ρ = {rho:.2f}</small></th>"
    rows = []
    for place in range(min(CHANNELS, len(columns[own]))):
        cells = []
        for name, rank in columns.items():
            channel = int(np.flatnonzero(rank == place)[0])
            weight = explained.channels[name][channel]
            moved = int(columns[own][channel]) - place
            cells.append(
                f'<td><div class="cell">{_map(explained.feature_map, channel)}'
                f'<span>{channel}</span><div class="track">'
                f'<div class="fill" style="width: {100 * weight:.0f}%"></div></div>'
                f"<span>{weight:.3f}</span>{'' if name == own else _moved(moved)}"
                "</div></td>"
            )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return TABLE.substitute(count=len(columns[own]), head=head, rows="\n".join(rows))


def _map(feature_map, channel):
    """A channel of the feature map as a small picture, its largest value white."""
    values = feature_map[..., channel]
    span = float(np.ptp(values)) or 1.0
    pixels = np.uint8(255 * (values - values.min()) / span)
    return f'<img src="{data_uri(pixels)}" alt="map of channel {channel}">'


def _moved(ranks_up):
    if not ranks_up:
        return '<span class="same">=</span>'
    kind, arrow = ("up", "▲") if ranks_up > 0 else ("down", "▼")
    return f'<span class="{kind}">{arrow} {abs(ranks_up)}</span>'
