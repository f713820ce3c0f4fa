"""Training on parameter servers: each worker trains on parts of the data."""

import collections
import contextlib
import time
from functools import partial

import numpy as np
import tensorflow as tf

from hccm_tf.training.evaluation import PREDICTION_COLUMNS, impressions, to_frame
from hccm_tf.training.preemption import wait_for
from hccm_tf.training.strategies import num_tasks
from hccm_tf.training.trainer import Trainer

# A part is what a worker that dies has to be done again.
PARTS_PER_WORKER = 8
AGAIN_SECONDS = 0.1  # until a result that was lost is asked for again


class ParameterServerTrainer(Trainer):
    """Trains and predicts with `tf.distribute.ParameterServerStrategy`.

    The chief hands out parts of the data; a worker reads its part, images included, and
    runs one step after the other on it, without waiting for others. The part of a
    worker that dies is done again, by another or by itself when it is back.

    Args:
        as of `hccm_tf.training.trainer.Trainer`.
    """

    def __init__(self, model, strategy, batches):
        super().__init__(model, strategy, batches)
        workers = num_tasks("worker")
        files = len(batches.folder.files("train"))
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
        most = PARTS_PER_WORKER * num_tasks("worker")
        return min(most, self._batches.num_batches(split))

    def train_epoch(self, epoch, done=0, check=lambda: None):
        """Trains the parts of an epoch that are left; yields the logs of each."""
        # Here and not in the generator, which may never start: all parts may be done.
        del self.losses[done:]
        return self._train_parts(epoch, done, check)

    def _train_parts(self, epoch, done, check):
        parts = [(epoch, index) for index in range(done, self.steps)]
        for loss in self._run(self._train_part, parts, check):
            self.losses.append(float(loss))
            yield {"loss": self.epoch_loss()}

    def epoch_loss(self):
        """Mean loss of the epoch's parts so far."""
        return float(np.mean(self.losses)) if self.losses else float("nan")

    def _run(self, function, arguments, check):
        """Calls a function on the workers; yields the results in order.

        Not all at once: what a dead worker leaves comes last of what is scheduled. A
        part may take minutes: it is not waited for when `check` raises.
        """
        results = collections.deque()
        for numbers in arguments:
            check()
            numbers = [tf.constant(number, tf.int64) for number in numbers]
            results.append(self._coordinator.schedule(function, numbers))
            if len(results) == self._window:
                yield wait_for(partial(self._fetch, results.popleft()), check)
        for result in results:
            yield wait_for(partial(self._fetch, result), check)

    def _fetch(self, result):
        """A result, also if the worker that has it dies before it is fetched.

        TensorFlow's own thread, which waits for the same result, then has the function
        run again, but whoever fetches gets the error of the worker.
        """
        while True:
            try:
                return result.fetch()
            except tf.errors.OpError:
                # Raises the error of a function that will not be run again.
                if self._coordinator.done():
                    # TensorFlow's thread has got all results by now.
                    return result.fetch()
                time.sleep(AGAIN_SECONDS)

    def _train(self, epoch, index):
        """Trains a part; the mean loss of its steps."""
        part = index, self.steps
        dataset = self._batches.dataset("train", epoch=epoch, part=part)

        def step(batch, total, steps):
            # What Keras returns is the mean of all workers, which overwrite each other.
            with _recorded_loss(self.model) as losses:
                self.strategy.run(self.model.train_step, (batch[:3],))
            return total + losses[-1], steps + 1

        total, steps = _reduce(dataset, (tf.constant(0.0), tf.constant(0.0)), step)
        return tf.math.divide_no_nan(total, steps)

    def predict(self, split, check=lambda: None):
        """Data frame of `hccm_tf.training.evaluation.to_frame`."""
        count = self._num_parts(split)
        if split not in self._predict_parts:
            number = tf.TensorSpec([], tf.int64)
            self._predict_parts[split] = tf.function(
                lambda index: self._predict(split, (index, count)),
                input_signature=[number],
            )
        parts = [[index] for index in range(count)]
        results = list(self._run(self._predict_parts[split], parts, check))
        columns = [np.concatenate(column) for column in zip(*results, strict=True)]
        return to_frame(dict(zip(PREDICTION_COLUMNS, columns, strict=True)))

    def _predict(self, split, part):
        """As `hccm_tf.training.evaluation.predict_part`, in a graph."""
        index, count = part
        requests = self._batches.requests_per_batch(split)
        columns = tuple(
            tf.TensorArray(dtype, 0, dynamic_size=True, element_shape=[None])
            for dtype in PREDICTION_COLUMNS.values()
        )

        def step(batch, number, *columns):
            first = (index + tf.cast(number * count, tf.int64)) * requests
            values = impressions(batch, self.model(batch[0], training=False), first)
            columns = [
                column.write(number, value)
                for column, value in zip(columns, values, strict=True)
            ]
            return number + 1, *columns

        dataset = self._batches.dataset(split, part=part)
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
