import numpy as np
import pytest
import tensorflow as tf

from hccm_tf.data.dataset import Batches
from hccm_tf.data.feature import Feature
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.models import build_model
from hccm_tf.models.base import Base
from hccm_tf.models.layer_pool import LayerPool
from hccm_tf.models.non_visual import id_dropout, products
from hccm_tf.models.options import NetworkOptions
from tests.conftest import tiny
from tests.models.batches import LOSS


@pytest.mark.parametrize("shape", [(3, 6), (3, 2, 6)])
def test_products_of_two_attentions(shape):
    rng = np.random.default_rng(0)
    query, image, by_ids = rng.normal(size=(3, *shape))
    history, mask = rng.normal(size=(3, 5, 6)), rng.random((3, 5)) < 0.6
    mask[0], mask[1:, 0] = False, True
    mean = np.stack(
        [
            h[m].mean(axis=0) if m.any() else 0 * h[0]
            for h, m in zip(history, mask, strict=True)
        ]
    )
    mean = np.broadcast_to(mean.reshape(3, *[1] * (len(shape) - 2), 6), shape)
    found = products(
        *map(tf.constant, (query, np.concatenate([image, by_ids], -1), history, mask))
    )
    expected = [query * image, query * by_ids, query * mean]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def dropout_of(feature, strength=3.0, counts=None):
    """The `IdDropout` of a feature, of which training saw its values so often."""
    counts = {} if counts is None else {feature.name: np.array(counts)}
    model = Base(Schema((feature,), counts=counts), NetworkOptions(id_dropout=strength))
    return id_dropout(model, feature, LayerPool(), "brand")


def test_id_dropout_follows_how_often_an_id_was_seen():
    feature = Feature("brand", "vocabulary", size=3, frequency=100.0)
    layer = dropout_of(feature, counts=[1, 3, 297])
    np.testing.assert_allclose(layer.rates, [0, 0, 0.75, 0.5, 0.01], rtol=1e-6)
    ids = np.tile(np.arange(5, dtype="int32"), (20_000, 1))
    hidden = (np.asarray(layer(ids, training=True)) != ids).mean(axis=0)
    np.testing.assert_allclose(hidden, layer.rates, atol=0.02)


def test_id_dropout_without_counts_follows_the_features_frequency():
    for frequency, rate in ((1.0, 0.75), (3.0, 0.5), (297.0, 0.01)):
        feature = Feature("brand", "integer", size=9, frequency=frequency)
        assert dropout_of(feature).rate == pytest.approx(rate)
    assert dropout_of(Feature("brand", "hash", size=9, frequency=3.0)).rate == 0
    unknown = Feature("brand", "vocabulary", size=9)
    assert dropout_of(unknown, strength=0).rate == 0
    with pytest.raises(InputError, match="brand has no frequency"):
        dropout_of(unknown)
    with pytest.raises(ValueError, match="id_dropout.*-1"):
        NetworkOptions(id_dropout=-1)


@pytest.mark.parametrize("name", ["item_id", "category"])
def test_the_out_of_vocabulary_row_is_trained(shop, name):
    model = build_model(
        "hccm",
        shop.schema,
        feature_map_shape=shop.store.shape,
        **tiny("hccm", id_dropout=1e4),
    )
    model.compile("sgd", LOSS, jit_compile=False)
    rows = [w for w in model.trainable_weights if w.path.endswith("embeddings")]
    rows = [w for w in rows if f"{name}_embedding" in w.path or "prior" in w.path]
    before = [np.asarray(w)[1].copy() for w in rows]
    dataset = Batches(shop.data, shop.schema, 256, shop.store).dataset("train")
    inputs, labels, counts, _ = next(iter(dataset))
    model.train_on_batch(inputs, labels, sample_weight=counts)
    assert len(rows) == 2
    for weight, old in zip(rows, before, strict=True):
        assert (np.asarray(weight)[1] != old).any(), weight.path
