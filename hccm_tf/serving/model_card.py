"""The card of an exported version: what is known of its model, for who serves it."""

import dataclasses
import datetime
import math
import os
import pathlib

import keras
import tensorflow as tf

from hccm_tf.configuration import Configuration, to_flag
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.split_facts import split_facts
from hccm_tf.version import __version__

# The place in a SavedModel for what is no part of it. TensorFlow Serving takes the
# warm-up requests from there and no other file, and a refresh copies the folder. Beside
# the versions a card would not go with its version.
CARD = pathlib.Path("assets.extra", "model_card.md")
METRICS = {"gauc": "GAUC", "log_loss": "log loss", "calibration": "calibration"}

MODEL = """\
# Model card: {name}

{name} says how probable it is that a user clicks an item{clicks}{photos}. Exported on
{day}, UTC."""

LIMITS = """\
- It is to rank items of this catalogue for users like those of the log, where the log
  was made. Its probabilities are of the log too: elsewhere, or later, users click more
  or less.
- It was measured on what was shown. What users do when it decides what they see was not
  measured, nor how good it is for groups of users other than those above.
- Speed and memory on a server were not measured for this version.
- Ids that a vocabulary lacks share one of its rows; hashed ids share rows by chance."""

INTERVALS = """\
Intervals: a bootstrap over users, of predictions that were kept, up to a million; a
training that exports in the same command has those of validation, too. What another
seed would give is not in them; `--compare` measures that. Known items and users are
those of the model's vocabularies."""
CHOSEN = """\
The epoch was chosen on validation, so that its figures are a little too good."""

# A pass over more labels and times would take longer than the export.
MOST_READ = 5_000_000


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a run tells of the model that it has left.

    Args:
        run: the folder's name.
        configuration: `Configuration` of the run.
        metrics: content of its `metrics.json`, `{}` without.
        aucs: what the impressions are → dict `auc`, `interval`, `impressions`.
    """

    run: str
    configuration: Configuration
    metrics: dict
    aucs: dict


def model_card(trained, data_dir, signatures, origin=None):
    """The card, Markdown; what is not known is said to be so.

    Args:
        trained: `hccm_tf.runs.TrainedModel`.
        data_dir: data folder of the export's catalogue.
        signatures: `hccm_tf.serving.signatures.Signatures` of the export.
        origin: `Origin`, `None` for a model that is not of a run.
    """
    definition = trained.definition
    clicks = ", from what the user clicked before" * bool(trained.schema.sequences)
    photos = " and from photos" if definition.has_images else "; it sees no photos"
    day = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    told = trained.configuration if origin is None else origin.configuration
    sections = {
        "Model": _model(trained, told, origin),
        "Data": _data(told, data_dir),
        "What it knew of items when exported": _items(trained, data_dir, signatures),
        "Metrics": _metrics(origin),
        "Limits": LIMITS,
        "How to ask": _ask(signatures, origin),
    }
    parts = [MODEL.format(name=trained.name, clicks=clicks, photos=photos, day=day)]
    for heading, text in sections.items():
        parts += [f"## {heading}", text]
    return "\n\n".join(parts) + "\n"


def note_refresh(version, line):
    """Adds a line on a refresh to a version's card; exports of before have none."""
    path = pathlib.Path(version) / CARD
    if path.exists():
        text, heading = path.read_text("utf-8"), "## Refreshes"
        if heading not in text:
            text += f"\n{heading}\n\n"
        day = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
        path.write_text(f"{text}- {day}: {line}\n", "utf-8")


def _model(trained, told, origin):
    defaults = {**vars(told.model.Options()), **vars(type(told.settings)())}
    values = told.values().items()
    given = [to_flag(n, v) for n, v in values if v not in (None, defaults[n])]
    lines = [
        f"- {trained.num_parameters:,} parameters",
        f"- options that differ from the defaults: `{' '.join(given) or 'none'}`",
    ]
    if origin is not None:
        lines.append(f"- run `{origin.run}`{_training(origin.metrics)}")
    if told.warm_start_from is not None:
        began = pathlib.Path(told.warm_start_from).name
        how = f"began with weights of run `{began}` ({told.warm_start})"
        if not told.settings.epochs:
            how = f"not trained here: the weights of run `{began}` as they were"
        lines.append(f"- {how}")
    lines.append(
        f"- exported with hccm_tf {__version__}, TensorFlow {tf.__version__}, Keras "
        f"{keras.__version__}"
    )
    return "\n".join(lines)


def _training(metrics):
    training = metrics.get("training", {})
    if not training.get("epochs"):
        return ""
    seconds = f"{training['seconds']:,.0f} seconds of training"
    return f": {training['epochs']} epochs, {seconds}"


def _data(told, data_dir):
    own = told.data_dir or data_dir
    text = f"Folder `{pathlib.Path(own).name}`"
    if os.path.abspath(own) == os.path.abspath(data_dir):
        return f"{text}.\n\n{_splits(DataFolder(data_dir))}"
    return f"{text}; the export's catalogue is that of `{pathlib.Path(data_dir).name}`."


def _splits(folder):
    rows = ["| split | impressions | click rate | from | to |", "|---|---|---|---|---|"]
    for split in folder.shard_lengths():
        impressions = folder.num_impressions(split)
        if impressions > MOST_READ:
            rows.append(
                f"| {split} | {impressions:,} | not read | not read | not read |"
            )
            continue
        facts = split_facts(folder, split)
        first, last = facts["days"] or ["not known"] * 2
        rows.append(
            f"| {split} | {impressions:,} | {facts['click_rate']:.4f} | "
            f"{first} | {last} |"
        )
    rate = folder.schema(with_vocabularies=False).negative_keep_rate
    if rate < 1:
        rows.append(
            f"\nOf the training split's impressions without a click, {rate:.1%} are "
            "there; what the model answers is corrected for it."
        )
    if folder.weighted:
        rows.append("\nImpressions have weights, which the click rate leaves out.")
    return "\n".join(rows)


def _items(trained, data_dir, signatures):
    catalogue = DataFolder(data_dir).catalogue(["item_id", "image_key"])
    lines = [f"- {len(catalogue):,} items of the catalogue"]
    if signatures.items is not None:
        lines.append(
            "- their columns come from a table as old as the export or its last "
            "refresh; an item that it does not have is unknown"
        )
    if signatures.table is not None:
        vectors = signatures.table.representation_vectors
        count = len(signatures.table.representation_keys.numpy())
        lines += [
            f"- {count:,} photos, as {vectors.dtype.name} vectors of "
            f"{vectors.shape[1]} numbers; one of several categories counts as several",
            f"- photos seen through: {_cnn(trained.cnn)}",
            "- a photo that the table does not have counts as none: its vector is 0, "
            "and the model is told that there is no photo",
        ]
    return "\n".join(lines)


def _cnn(cnn):
    known = {name: value for name, value in (cnn or {}).items() if value is not None}
    return ", ".join(f"{n.replace('_', ' ')} {v}" for n, v in known.items())


def _metrics(origin):
    if origin is None or "test" not in origin.metrics:
        return (
            "None: the model was exported without the metrics of a run. "
            "`train_main.py --from_run --data_dir --run_dir --export_dir` measures it."
        )
    header = ["", "impressions", "AUC", "95%", *METRICS.values()]
    rows = [header, ["---"] * len(header)]
    found = {name: origin.metrics[name] for name in ("validation", "test")}
    parts = {name: auc for name, auc in origin.aucs.items() if name not in found}
    for name, of in {**found, **parts}.items():
        auc = origin.aucs.get(name)
        others = (_number(of[metric]) if metric in of else "" for metric in METRICS)
        interval = "not kept" if auc is None else _interval(auc["interval"])
        rows.append(
            [name, f"{of['impressions']:,}", _number(of["auc"]), interval, *others]
        )
    rows = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    verdict = origin.metrics.get("verdict", {}).get("lines", [])
    # What to try next is for who trains it.
    said = [f"- {line}" for line in verdict if not line.startswith("Next: ")]
    chosen = [CHOSEN] if origin.metrics.get("training", {}).get("epochs") else []
    intervals = "\n".join([INTERVALS, *chosen])
    return "\n\n".join([rows, intervals, *(["\n".join(said)] if said else [])])


def _number(value):
    return "–" if math.isnan(value) else f"{value:.4f}"


def _interval(bounds):
    return "–" if bounds is None else " to ".join(map(_number, bounds))


def _ask(signatures, origin):
    endpoints = signatures.endpoints()
    spec = endpoints["serving_default"][1]
    rows = ["| input of `serving_default` | type | shape |", "|---|---|---|"]
    for name, tensor in spec.items():
        shape = "[B]" if tensor.shape.rank == 1 else "[B, T]"
        rows.append(f"| `{name}` | {tensor.dtype.name} | {shape} |")
    request = "request.json" if origin is None else f"{origin.run}/request.json"
    return "\n".join(
        [
            f"`hccm-ask VERSION {request}`, where VERSION is the folder that holds "
            "`assets.extra`, asks a first request. A server takes the same JSON.",
            "",
            *rows,
            "",
            f"Signatures: {', '.join(f'`{name}`' for name in endpoints)}.",
        ]
    )
