"""A page that shows what a model looked at in some test impressions."""

from hccm_tf.atomic import new_file
from hccm_tf.explanation.page import render
from hccm_tf.explanation.pictures import read_pictures
from hccm_tf.explanation.values import explain


def write_explanation(
    path, model, schema, data_dir, feature_maps, options, image_dir, count
):
    """Writes a self-contained HTML page: no script, and nothing that it loads.

    Args:
        path: file to write.
        model: trained, of `hccm_tf.models.build_model`.
        schema: its `Schema`.
        data_dir: data folder, whose first test impressions are shown.
        feature_maps: `FeatureMapStore` or `ImageFolder`, `None` for a model without
            images.
        options: dict, the model's `ModelOptions`.
        image_dir: folder of the images.
        count: number of impressions.

    Raises:
        InputError: if the model has no attention.
    """
    impressions = explain(model, schema, data_dir, feature_maps, options, count)
    names = {name for impression in impressions for name in impression.images()}
    pictures = read_pictures(sorted(names), image_dir)
    with new_file(path) as temporary:
        temporary.write_text(render(model.name, impressions, pictures), "utf-8")
