"""Trained models that have seen no data."""

from hccm_tf.configuration import configure
from hccm_tf.models import ImageInput
from hccm_tf.runs import TrainedModel
from tests.conftest import tiny


def untrained(name, schema, store=None, **options):
    """A `TrainedModel` of `tiny` options with new weights.

    Args:
        name: of the model.
        schema: `Schema`.
        store: `ImageStore`, whose channels stay as they are; `None` without images.
        **options: further options of the model.
    """
    configuration = configure(name, tiny(name, **options))
    images = None if store is None else ImageInput(store.shape)
    definition = configuration.model(schema, configuration.options, images)
    return TrainedModel(
        definition.build(), definition, configuration, store and store.cnn
    )
