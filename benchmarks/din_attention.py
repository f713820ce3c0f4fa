"""`DINAttention` against the same unit on the concatenation, time and memory.

    python benchmarks/din_attention.py --json=FILE

Forward and backward of the unit 80-40 with Dice, batch 512, 100 clicks. The naive form
builds `[q, k, q - k, q * k]`, `[B, T, 4 D]`, as the other packages do, and goes on with
the same layers. Peak memory is what the steps add to the highest resident set of a
process, each form in a process of its own.
"""

import concurrent.futures
import multiprocessing
import pathlib
import re

import numpy as np
import tensorflow as tf
from absl import app, flags
from keras import ops
from timing import alternate, ratio, report, summary

from hccm_tf.layers import DINAttention

BATCH_SIZE, MAX_HISTORY, ROUNDS = 512, 100, 20


class NaiveDINAttention(DINAttention):
    """The formula as it is written."""

    def call(self, query, keys, keys_mask=None, training=None):
        q = ops.broadcast_to(query[:, None], ops.shape(keys))
        x = ops.concatenate([q, keys, q - keys, q * keys], axis=-1)
        x = ops.matmul(x, self.kernel) + self.bias
        for activation, dense in zip(self.activations, self.denses, strict=True):
            x = dense(activation(x, mask=keys_mask, training=training))
        return ops.sum(ops.where(keys_mask[..., None], x, 0.0) * keys, axis=1)


FORMS = {"naive": NaiveDINAttention, "ours": DINAttention}


def make_step(form, dim):
    """Function that runs a form forward and backward; the weights are equal."""
    rng = np.random.default_rng(0)
    query = tf.constant(rng.normal(size=(BATCH_SIZE, dim)), tf.float32)
    keys = tf.constant(rng.normal(size=(BATCH_SIZE, MAX_HISTORY, dim)), tf.float32)
    mask = tf.ones((BATCH_SIZE, MAX_HISTORY), tf.bool)
    layer = FORMS[form]()
    layer.build(query.shape, keys.shape)
    layer.set_weights([rng.normal(0, 0.1, w.shape) for w in layer.get_weights()])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch([query, keys])
            loss = tf.reduce_sum(layer(query, keys, mask, training=True) ** 2)
        return tape.gradient(loss, [query, keys, *layer.trainable_weights])

    return lambda: [tf.convert_to_tensor(g).numpy() for g in step()]


def resident_megabytes():
    """The most memory that this process has had resident."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def peak_megabytes(form, dim):
    """How much the steps of a form add to it."""
    step = make_step(form, dim)
    before = resident_megabytes()
    for _ in range(3):
        step()
    return resident_megabytes() - before


def main(argv):
    del argv
    context = multiprocessing.get_context("spawn")
    tables, ratios = {}, {}
    for dim in FLAGS.dim:
        steps = {form: make_step(form, dim) for form in FORMS}
        for naive, ours in zip(*(step() for step in steps.values()), strict=True):
            tolerance = 1e-5 * np.abs(naive).max()
            np.testing.assert_allclose(ours, naive, rtol=1e-4, atol=tolerance)
        times = alternate(steps, ROUNDS)
        table = summary(times)
        for form in FORMS:
            with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
                table.loc[form, "peak MB"] = pool.submit(
                    peak_megabytes, form, dim
                ).result()
        tables[f"DINAttention, forward and backward, D = {dim}"] = table
        ratios[f"D = {dim}, time: naive / ours"] = ratio(times, "naive", "ours")
        memory = table["peak MB"]
        ratios[f"D = {dim}, peak memory: naive / ours"] = (
            memory["naive"] / memory["ours"],
        )
    report(tables, ratios, FLAGS.json)


FLAGS = flags.FLAGS

if __name__ == "__main__":
    flags.DEFINE_multi_integer("dim", [16, 128], "Widths of the vectors.")
    flags.DEFINE_string("json", None, "File for the figures.")
    app.run(main)
