"""Trained models that have seen no data."""

from unittest import mock

from hccm_tf.configuration import configure
from hccm_tf.models import ImageInput
from hccm_tf.runs import TrainedModel
from hccm_tf.training.fit import FittedModel, prepare
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


def fit_untrained(estimator, data):
    """A `CTREstimator` as its `fit` makes it, before the first step of training."""

    def fit(configuration, strategy):
        trained, batches, _ = prepare(configuration)
        return FittedModel(trained, batches)

    with mock.patch("hccm_tf.estimator.fit", fit):
        return estimator.fit(data)
