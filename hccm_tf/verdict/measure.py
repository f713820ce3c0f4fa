"""The numbers behind a verdict."""

import dataclasses

import numpy as np

from hccm_tf.configuration import configure
from hccm_tf.training.evaluation import infer_function, predict_part, to_frame
from hccm_tf.training.fit import fit
from hccm_tf.trees.click_rates import click_rates
from hccm_tf.trees.features import category_names, read_table
from hccm_tf.trees.fit import fit_tables, open_batches
from hccm_tf.verdict.gains import auc_gain, auc_gap, log_loss_gain

MAX_IMPRESSIONS = 200_000  # of each split, that the trees see and that are resampled
SAMPLE = 20_000  # of the training split, that the model predicts


def measure(fitted, validation, test, history):
    """Compares a trained network with simple rivals, and training with validation.

    Args:
        fitted: `FittedModel`.
        validation: data frame of `FittedModel.predictions`, of split `validation`.
        test: likewise, of split `test`.
        history: data frame with a row for each epoch, of `RUN/history.csv`.

    Returns:
        dict that JSON can hold: `constant`, `popularity`, `trees` and `overfitting`,
        see `hccm_tf.verdict.gains`, each `None` where there is none; and the number
        `kept_epoch` of `epochs`, from 1.
    """
    batches, trees = _trees_of(fitted.trained.configuration)
    with batches.folder.report_damage():
        similarity = trees.options.similarity
        train, stop, table = (
            read_table(batches, split, MAX_IMPRESSIONS, epoch, similarity)
            for split, epoch in (("train", 0), ("validation", 0), ("test", None))
        )
    test = test.set_index("row").loc[table.rows.row]
    popularity = of_trees = None
    if _has_both(train.rows) and _has_both(test):
        popularity = _popularity(batches.schema, train, table, test)
        base = fit_tables(trees, train, stop, batches.schema.negative_keep_rate)
        of_trees = _trees(trees, train, base.predict(table), test)
    return {
        "constant": _constant(batches.schema, train, test),
        "popularity": popularity,
        "trees": of_trees,
        "overfitting": _overfitting(fitted, validation[:MAX_IMPRESSIONS]),
        "kept_epoch": _kept(history) + 1,
        "epochs": len(history),
    }


def measure_photos(configuration, test, strategy=None):
    """What a model gains over the same trained with the photos dealt out to others.

    Args:
        configuration: `Configuration` that the model was trained with.
        test: data frame of its predictions of split `test`.
        strategy: as of `hccm_tf.training.fit.fit`.

    Returns:
        dict of `hccm_tf.verdict.gains.auc_gain`; `None` where there is no AUC.
    """
    settings = dataclasses.replace(configuration.settings, shuffle_images=True)
    control = dataclasses.replace(
        configuration, settings=settings, run_dir=None, resume=False
    )
    test = test[:MAX_IMPRESSIONS]
    if not _has_both(test):
        return None
    base = fit(control, strategy).predictions("test")[: len(test)]
    return auc_gain(test, test.ctr, base.ctr)


def _has_both(rows):
    """Whether there are clicks and others with a weight."""
    return rows.label[rows.weight > 0].nunique() == 2


def _kept(history):
    """The place of the epoch that was kept, see `hccm_tf.training.loop.run_epochs`."""
    if history.val_auc.isna().any():
        return int(history.val_log_loss.argmin())
    return int(history.val_auc.argmax())


def _trees_of(told):
    """`Batches` and `Configuration` of trees that see photos' maps if a model does."""
    sees_maps = told.model.has_images and not told.model.takes_pixels
    given = {
        "seed": told.settings.seed,
        "max_history": told.settings.max_history,
        "similarity": "cosine" if sees_maps else "none",
        "shuffle_images": sees_maps and told.settings.shuffle_images,
    }
    folders = {name: getattr(told, name) for name in ("data_dir", "feature_maps")}
    trees = configure("trees", given, **folders)
    return open_batches(trees), trees


def _constant(schema, train, test):
    """Over the click rate in training."""
    weight = train.rows.weight
    if not (weight.sum() and test.weight.sum()):
        return None
    rate = float(schema.unsampled(np.average(train.rows.label, weights=weight)))
    return {"click_rate": rate, **log_loss_gain(test, rate)}


def _popularity(schema, train, table, test):
    """Over the items' click rates in training, those of few impressions near all's."""
    names = category_names(schema)
    if "item_id" not in names:
        return None
    place, rows = names.index("item_id"), train.rows
    shown, tested = (t.categories[:, place] for t in (train, table))
    rates = click_rates(shown, rows.label, rows.weight, train.sizes[place])
    found = auc_gain(test, test.ctr, rates[tested])
    return {"impressions": len(rows), **found}


def _trees(trees, train, predictions, test):
    """Over boosted trees."""
    found = auc_gain(test, test.ctr, predictions)
    similarity = trees.options.similarity
    return {"similarity": similarity, "impressions": len(train.rows), **found}


def _overfitting(fitted, validation):
    """How much higher the AUC is on impressions that were trained on."""
    batches = dataclasses.replace(fitted.batches, group_by_item=False)
    requests = batches.requests_per_batch("train")
    count = min(SAMPLE, len(validation)) // batches.batch_size + 1
    sample = batches.dataset("train", epoch=0).take(count)
    infer = infer_function(fitted.trained.keras_model)
    train = to_frame(predict_part(infer, sample, (0, 1), requests))
    if not (_has_both(train) and _has_both(validation)):
        return None
    return {"impressions": len(train), **auc_gap(train, validation)}
