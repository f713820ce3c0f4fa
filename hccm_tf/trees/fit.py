"""Boosted trees, trained on split `train`, stopped by the log loss on `validation`."""

import dataclasses
import itertools
import time

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from hccm_tf.atomic import write_text
from hccm_tf.configuration import Configuration, to_flagfile
from hccm_tf.data.dataset import Batches
from hccm_tf.data.folder import DataFolder
from hccm_tf.data.labels import missing_label
from hccm_tf.data.pooled_maps import PooledMaps
from hccm_tf.errors import InputError
from hccm_tf.metrics import evaluate_frame
from hccm_tf.models import Trees
from hccm_tf.run_folder import RunFolder
from hccm_tf.training.images import open_images
from hccm_tf.training.strategies import CLUSTER_STRATEGIES
from hccm_tf.trees.click_rates import click_rates, out_of_fold, rare_as_one
from hccm_tf.trees.features import read_table

MAX_IMPRESSIONS = 2_000_000  # of the training split, whose features are in memory
BATCH_SIZE = 1_024
LEAVES = 31
SETTINGS = {
    "learning_rate": 0.05,
    "max_iter": 1_000,
    "max_leaf_nodes": LEAVES,
    "min_samples_leaf": 100,
    "n_iter_no_change": 30,
}


@dataclasses.dataclass(frozen=True)
class TrainedTrees:
    """Trained trees.

    Args:
        configuration: `Configuration` that they were trained with.
        rates: list of the click rates of each category's values.
        classifier: `HistGradientBoostingClassifier`.
    """

    configuration: Configuration
    rates: list
    classifier: HistGradientBoostingClassifier

    name = Trees.name

    @property
    def num_trees(self):
        """How many trees have the best log loss on the validation split."""
        return int(np.argmax(self.classifier.validation_score_[1:])) + 1

    @property
    def num_parameters(self):
        """How many values their leaves have, at most."""
        return self.num_trees * LEAVES

    def predict(self, table):
        """Click probabilities `[N]` of a `Table`, float64."""
        stages = self.classifier.staged_predict_proba(_inputs(table, self.rates))
        return next(itertools.islice(stages, self.num_trees - 1, None))[:, 1]

    def save(self, run_dir):
        """Writes the flags that make the same trees; no other run begins with them."""
        write_text(RunFolder(run_dir).flags, to_flagfile(self.configuration))


@dataclasses.dataclass(frozen=True)
class FittedTrees:
    """Trained trees with the data that they were trained on.

    Args:
        trained: `TrainedTrees`.
        batches: `Batches` of its data folder.
        training: dict `{"seconds", "epochs"}`; each tree takes a pass over the
            impressions, whether it is one of the best or not.
    """

    trained: TrainedTrees
    batches: Batches
    training: dict

    def predictions(self, split):
        """As `hccm_tf.training.fit.FittedModel.predictions`."""
        with self.batches.folder.report_damage():
            similarity = self.trained.configuration.options.similarity
            table = read_table(self.batches, split, similarity=similarity)
        ctr = self.trained.predict(table)
        return table.rows.assign(ctr=self.batches.schema.unsampled(ctr))

    def evaluate(self, split):
        """Metrics of `predictions`, see `hccm_tf.metrics.evaluate_frame`."""
        return evaluate_frame(self.predictions(split))


def fit_trees(configuration):
    """Trains the trees of a configuration.

    Of a split they see about `MAX_IMPRESSIONS` at most, of requests chosen at random.

    Args:
        configuration: `Configuration` of `hccm_tf.models.Trees`.

    Returns:
        `FittedTrees`.

    Raises:
        InputError: names the file, column or argument to mend.
    """
    batches, folder = open_batches(configuration), DataFolder(configuration.data_dir)
    similarity = configuration.options.similarity
    lacks = missing_label(folder, "train")
    if lacks:
        raise InputError(f"data_dir={folder.path}: {lacks}, so that no tree can grow")
    with folder.report_damage():
        train, validation = (
            read_table(batches, split, MAX_IMPRESSIONS, 0, similarity)
            for split in ("train", "validation")
        )
    share = len(train.rows) / folder.num_impressions("train")
    if share < 1:
        print(f"the trees see {share:.1%} of the training split's impressions")
    start = time.perf_counter()
    keep_rate = batches.schema.negative_keep_rate
    trained = fit_tables(configuration, train, validation, keep_rate)
    training = {
        "seconds": time.perf_counter() - start,
        "epochs": trained.classifier.n_iter_ * share,
    }
    return FittedTrees(trained, batches, training)


def fit_tables(configuration, train, validation, negative_keep_rate):
    """Trains the trees on impressions whose features are made.

    A category becomes its click rate in training, and for an impression of training
    that of folds without it; rare ones count as one.

    Args:
        configuration: `Configuration` of `hccm_tf.models.Trees`.
        train: `Table` of impressions with both labels.
        validation: `Table` of those that say when to stop.
        negative_keep_rate: share of its negatives that `train` has; `validation` has
            all, which weigh as much less there.

    Returns:
        `TrainedTrees`.
    """
    rows, seed = train.rows, configuration.settings.seed
    rng, own, rates = np.random.default_rng(seed), [], []
    for indices, size in zip(train.categories.T, train.sizes, strict=True):
        place = rare_as_one(indices, size)
        known = place[indices], rows.label, rows.weight, size
        own.append(out_of_fold(*known, rng))
        rates.append(click_rates(*known)[place])
    told = validation.rows
    kept = np.where(told.label == 1, 1.0, negative_keep_rate)
    classifier = HistGradientBoostingClassifier(
        **SETTINGS, early_stopping=True, random_state=seed
    )
    classifier.fit(
        np.column_stack([train.numbers, *own]),
        rows.label,
        rows.weight,
        X_val=_inputs(validation, rates),
        y_val=told.label,
        sample_weight_val=told.weight * kept,
    )
    return TrainedTrees(configuration, rates, classifier)


def _inputs(table, rates):
    """What the trees take of impressions that were not trained on."""
    columns = zip(rates, table.categories.T, strict=True)
    return np.column_stack([table.numbers, *(rate[c] for rate, c in columns)])


def check_trees(configuration):
    """Raises an `InputError` for what would end a run of trees before it has begun.

    Args:
        configuration: `Configuration` of `hccm_tf.models.Trees`.
    """
    _batches(configuration)


def open_batches(configuration):
    """`Batches` for `read_table`, with vectors in the place of the images' maps.

    Args:
        configuration: `Configuration` of `hccm_tf.models.Trees`.

    Raises:
        InputError: as `fit_trees`.
    """
    batches = _batches(configuration)
    if batches.images is None:
        return batches
    return dataclasses.replace(batches, images=PooledMaps(batches.images))


def _batches(configuration):
    settings, images = configuration.settings, None
    with_images = configuration.options.similarity != "none"
    if configuration.warm_start_from is not None or configuration.resume:
        name = "resume" if configuration.resume else "warm_start_from"
        raise InputError(f"{name}: trees begin anew")
    if configuration.strategy in CLUSTER_STRATEGIES:
        raise InputError(
            "strategy: trees are trained by one process. Received: "
            f"{configuration.strategy}"
        )
    if settings.shuffle_images and not with_images:
        raise InputError("shuffle_images: trees see no images with similarity=none")
    schema = DataFolder(configuration.data_dir).schema()
    if settings.max_history is not None:
        schema = schema.with_max_history(settings.max_history)
    if configuration.options.similarity == "category_cosine":
        for name in ("category", "history_category"):
            if name not in schema:
                raise InputError(
                    f"similarity=category_cosine: the schema has no {name}"
                )
    if with_images:
        images, _ = open_images(configuration, schema)
    return Batches(
        configuration.data_dir, schema, BATCH_SIZE, images, seed=settings.seed
    )
