"""Training on parameter servers: each worker trains on parts of the data."""

import collections
import contextlib

import numpy as np
import tensorflow as tf

from hccm_tf.data.folder import DataFolder
from hccm_tf.training.evaluation import DTYPES, to_frame
from hccm_tf.training.strategies import num_tasks

# A part is what a worker that dies has to be done again.
PARTS_PER_WORKER = 8


class ParameterServerTrainer:
    """Trains and predicts with `tf.distribute.ParameterServerStrategy`.

    The chief hands out parts of the data; a worker reads its part, images included, and
    runs one step after the other on it, without waiting for others. The part of a
    worker that dies is done again, by another or by itself when it is back.

    Args:
        as of `hccm_tf.training.synchronous.SynchronousTrainer`.
    """

    # A part may take minutes, and one that is broken off is done again.
    interruptible = True

    def __init__(self, model, strategy, make_dataset, data_dir, batch_size):
        self.model, self.strategy = model, strategy
        self._make_dataset = make_dataset
        self._data_dir, self._batch_size = data_dir, batch_size
        workers = num_tasks("worker")
        files = len(DataFolder(data_dir).files("train"))
        # Parts are files, unless there is not one for each worker.
        self.steps = files if files >= workers else self._num_parts("train")
        self._window = 2 * workers
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        # A seed that is a tensor does not go with a global seed of 0.
        tf.random.set_seed(1)
        number = tf.TensorSpec([], tf.int64)
        self._train_part = tf.function(self._train, input_signature=[number, number])
        self._predict_parts = {}

    def check_agreement(self, progress):
        """All processes see the same weights, those of the servers."""

    def _num_parts(self, split):
        examples = DataFolder(self._data_dir).num_impressions(split)
        batches = -(-examples // self._batch_size)
        return min(PARTS_PER_WORKER * num_tasks("worker"), batches)

    def train_epoch(self, epoch, done=0):
        """Trains the parts of an epoch that are left; yields the logs of each.

        Args:
            epoch: int.
            done: number of parts that were done before.
        """
        self._losses = []
        parts = [(epoch, part) for part in range(done, self.steps)]
        for loss in self._run(self._train_part, parts):
            self._losses.append(float(loss))
            yield {"loss": self._losses[-1]}

    def epoch_loss(self):
        """Mean loss of the parts that `train_epoch` trained last."""
        return float(np.mean(self._losses)) if self._losses else float("nan")

    def _run(self, function, arguments):
        """Calls a function on the workers; yields the results in order.

        Not all at once: what a dead worker leaves comes last of what is scheduled.
        """
        results = collections.deque()
        for numbers in arguments:
            numbers = [tf.constant(number, tf.int64) for number in numbers]
            results.append(self._coordinator.schedule(function, numbers))
            if len(results) == self._window:
                yield results.popleft().fetch()
        for result in results:
            yield result.fetch()

    def _train(self, epoch, part):
        """Trains a part; the mean loss of its steps."""
        dataset = self._make_dataset("train", epoch=epoch, part=(part, self.steps))

        def step(batch, total, steps):
            inputs, label, _ = batch
            # What Keras returns is the mean of all workers, which overwrite each other.
            with _recorded_loss(self.model) as losses:
                self.strategy.run(self.model.train_step, ((inputs, label),))
            return total + losses[-1], steps + 1

        total, steps = _reduce(dataset, (tf.constant(0.0), tf.constant(0.0)), step)
        return tf.math.divide_no_nan(total, steps)

    def predict(self, split):
        """Data frame of `hccm_tf.training.evaluation.to_frame`."""
        count = self._num_parts(split)
        if split not in self._predict_parts:
            number = tf.TensorSpec([], tf.int64)
            self._predict_parts[split] = tf.function(
                lambda part: self._predict(split, part, count), input_signature=[number]
            )
        parts = [[part] for part in range(count)]
        results = list(self._run(self._predict_parts[split], parts))
        columns = [np.concatenate(column) for column in zip(*results, strict=True)]
        return to_frame(dict(zip(DTYPES, columns, strict=True)))

    def _predict(self, split, part, count):
        """As `hccm_tf.training.evaluation.predict_part`, in a graph."""
        columns = tuple(
            tf.TensorArray(dtype, 0, dynamic_size=True, element_shape=[None])
            for dtype in DTYPES.values()
        )

        def step(batch, number, *columns):
            inputs, label, user = batch
            first = (part + tf.cast(number * count, tf.int64)) * self._batch_size
            position = first + tf.range(tf.size(user, tf.int64))
            ctr = self.model(inputs, training=False)
            values = position, user, label[:, 0], ctr[:, 0]
            columns = [
                column.write(number, value)
                for column, value in zip(columns, values, strict=True)
            ]
            return number + 1, *columns

        dataset = self._make_dataset(split, part=(part, count))
        _, *columns = _reduce(dataset, (tf.constant(0), *columns), step)
        return [column.concat() for column in columns]


def _reduce(dataset, state, step):
    """As `dataset.reduce`, whose function TensorFlow would run several times slower.

    It optimizes the graph that it is called from, but not the functions of datasets.

    Args:
        dataset: `tf.data.Dataset`.
        state: tuple of tensors or `tf.TensorArray`s.
        step: function of an element and a state, which returns the next state.
    """
    iterator = iter(dataset)

    def next_step(element, *state):
        state = step(element.get_value(), *state)
        return iterator.get_next_as_optional(), *state

    _, *state = tf.while_loop(
        lambda element, *_: element.has_value(),
        next_step,
        (iterator.get_next_as_optional(), *state),
    )
    return state


@contextlib.contextmanager
def _recorded_loss(model):
    """Yields a list that gets the losses which a model computes, tensors of a graph."""
    losses, compute_loss = [], model.compute_loss

    def record(*args, **kwargs):
        losses.append(compute_loss(*args, **kwargs))
        return losses[-1]

    model.compute_loss = record
    try:
        yield losses
    finally:
        model.compute_loss = compute_loss
