"""A page that shows what a model looked at in some test impressions."""

from hccm_tf.atomic import write_text
from hccm_tf.data.shard_check import checked
from hccm_tf.explanation.page import render
from hccm_tf.explanation.pictures import read_pictures, say_unread
from hccm_tf.explanation.values import explain


def write_explanation(path, trained, batches, image_dir, count):
    """Writes a self-contained HTML page: no script, and nothing that it loads.

    Args:
        path: file to write.
        trained: `hccm_tf.runs.TrainedModel`.
        batches: `Batches` of a data folder, whose first test impressions are shown.
        image_dir: folder of the images that are no URLs.
        count: number of impressions.

    Raises:
        InputError: if the model has no attention, or was not told the truth.
    """
    with checked(batches.images):
        impressions = explain(trained, batches, count)
    names = {name for impression in impressions for name in impression.images()}
    pictures, reasons = read_pictures(
        sorted(names), image_dir, **trained.configuration.settings.allowed
    )
    say_unread(reasons, len(names))
    write_text(path, render(trained.name, impressions, pictures))
