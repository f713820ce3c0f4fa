"""The floor of `din`: the products of its attention unit that no request shares.

Forward and backward, for each pair of a candidate and a click: from the product of
their embeddings to the first hidden layer, and the layers behind it.
"""

import itertools

import tensorflow as tf
from workload import ATTENTION_HIDDEN_UNITS, EMBEDDING_DIM, serve


def make_train(batches, activation):
    del activation
    pairs = sum(length.sum() * label.shape[1] for *_, length, label in batches)
    pairs = int(pairs) // len(batches)
    widths = list(itertools.pairwise((EMBEDDING_DIM, *ATTENTION_HIDDEN_UNITS, 1)))
    layers = [
        (tf.random.normal([pairs, m]), tf.random.normal([m, n]), tf.ones([pairs, n]))
        for m, n in widths
    ]

    @tf.function
    def step():
        return [
            (
                tf.matmul(x, kernel),
                tf.matmul(gradient, kernel, transpose_b=True),
                tf.matmul(x, gradient, transpose_a=True),
            )
            for x, kernel, gradient in layers
        ]

    def train(steps):
        for _ in range(steps):
            step()

    return train, sum(m * n for m, n in widths)


serve(make_train, by_request=True)
