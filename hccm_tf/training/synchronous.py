"""Steps in which all replicas take part: one device, mirrored, several workers."""

import contextlib
import functools
import zlib

import numpy as np
import tensorflow as tf

from hccm_tf.errors import InputError
from hccm_tf.training.checkpoints import local_value
from hccm_tf.training.evaluation import infer_function, predict_part, to_frame
from hccm_tf.training.trainer import Trainer


class SynchronousTrainer(Trainer):
    """Trains and predicts with a strategy whose replicas stay in step.

    Each replica takes a batch of its own, deduplicated by itself: `fit` would split one
    batch, and its row numbers would then point at another replica's images. Several
    workers read disjoint parts of the data.

    Args:
        as of `hccm_tf.training.trainer.Trainer`.
    """

    def __init__(self, model, strategy, batches):
        super().__init__(model, strategy, batches)
        # The shapes of batches vary; AutoGraph has nothing to convert.
        options = {"reduce_retracing": True, "autograph": False}
        self._train_step = tf.function(self._step, **options)
        # Keras' own would ask all replicas.
        self._infer = infer_function(model)
        self._average = tf.function(
            lambda: strategy.run(self._average_states), **options
        )
        self._gather_all = tf.function(
            lambda values: {n: strategy.gather(v, axis=0) for n, v in values.items()},
            **options,
        )
        replicas = strategy.num_replicas_in_sync
        self.steps = -(-batches.num_batches("train", shuffled=True) // replicas)

    def train_epoch(self, epoch, done=0, check=lambda: None):
        """Trains the steps of an epoch that are left; yields the logs of each.

        With several replicas the data begin anew where an epoch ends within a step.
        A step ends soon, so that there is no wait to end.
        """
        del check
        replicas, part = self.strategy.num_replicas_in_sync, self._part()
        dataset = self._batches.dataset(
            "train",
            epoch=epoch,
            part=part,
            skip=done * replicas // part[1],
            repeat=replicas > 1,
        )
        iterator = iter(dataset)
        for _ in range(done, self.steps):
            yield self._train_step(iterator)

    def check_agreement(self, progress):
        """Raises unless all workers begin alike.

        A file system may show some of them a checkpoint late.
        """
        _, workers = self._part()
        if workers == 1:
            return
        checksum = zlib.crc32(repr(progress).encode())
        with self.strategy.scope():
            for weight in self.model.weights:
                checksum = zlib.crc32(local_value(weight), checksum)
        checksums = {"checksum": np.array([checksum])}
        if len(set(self._gather(checksums, workers)["checksum"].tolist())) > 1:
            # A worker that ends while another still gathers leaves it another error.
            with contextlib.suppress(tf.errors.OpError):
                self._gather(checksums, workers)
            raise InputError(
                "strategy=multi_worker_mirrored: the workers have different weights, "
                "or are at different steps; start all of them with resume=True"
            )

    def _step(self, iterator):
        # A distributed dataset would start TensorFlow's tuner, which delays the end of
        # each epoch. This makes one dict, of all replicas' tensors, of theirs.
        distribute = self.strategy.experimental_distribute_values_from_function
        batch = distribute(lambda context: iterator.get_next()[:3])
        logs = self.strategy.run(self.model.train_step, args=(batch,))
        local = self.strategy.experimental_local_results
        return {name: local(value)[0] for name, value in logs.items()}

    def epoch_loss(self):
        """Mean loss of the epoch's steps so far, over all replicas.

        Of several workers, steps before a checkpoint count as on that which wrote it.
        """
        return float(self.model.get_metrics_result()["loss"])

    def _average_states(self):
        # Keras leaves each replica its own moving averages.
        context = tf.distribute.get_replica_context()
        for weight in self.model.non_trainable_weights:
            if weight.name.startswith("moving_"):
                value = tf.identity(weight.value)
                weight.assign(context.all_reduce("MEAN", value))

    def predict(self, split, check=lambda: None):
        """Data frame of `hccm_tf.training.evaluation.to_frame`, on every worker.

        The replicas then have the same moving averages, the mean of theirs.
        """
        if self.strategy.num_replicas_in_sync > 1:
            self._average()
        part = self._part()
        dataset = self._batches.dataset(split, part=part)
        requests = self._batches.requests_per_batch(split)
        columns = predict_part(self._infer, dataset, part, requests, check)
        return to_frame(columns if part[1] == 1 else self._gather(columns, part[1]))

    def _part(self):
        """This worker's number, and how many there are."""
        resolver = self.strategy.cluster_resolver
        if resolver is None:
            return 0, 1
        return resolver.task_id, resolver.cluster_spec().num_tasks("worker")

    def _gather(self, columns, workers):
        """The columns of all workers, one after the other."""
        local_replicas = self.strategy.num_replicas_in_sync // workers

        def value(column, context):
            # All replicas of a worker have its column: the first brings it.
            first = context.replica_id_in_sync_group % local_replicas == 0
            return tf.constant(column if first else column[:0])

        distribute = self.strategy.experimental_distribute_values_from_function
        values = {
            name: distribute(functools.partial(value, column))
            for name, column in columns.items()
        }
        gathered = self._gather_all(values)
        return {name: column.numpy() for name, column in gathered.items()}
