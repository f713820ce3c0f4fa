"""Residual k-means of images, whose codes are semantic ids."""

import dataclasses
import json
import zipfile

import numpy as np
from etils import epy

from hccm_tf.atomic import new_file
from hccm_tf.errors import InputError, first_line

with epy.lazy_imports():
    import tensorflow as tf
    from sklearn import cluster, metrics

    from hccm_tf.data import pooled_maps

LEVELS = 3
# Images of which centroids are found, for each code; more change them little.
IMAGES_PER_CODE = 256
BATCH_SIZE = 4_096
ARRAYS = ("centroids", "channel_mean", "channel_std", "cnn")


@dataclasses.dataclass(frozen=True)
class Centroids:
    """Residual k-means of pooled, standardised feature maps.

    ```
    r_1 = (mean over positions of F - channel_mean) / channel_std
    code_l = argmin over k of |r_l - centroids[l, k]|
    r_{l+1} = r_l - centroids[l, code_l]
    ```

    Args:
        centroids: float32 `[LEVELS, K, c]`.
        channel_mean: float32 `[c]`, that of the store that they were fitted to.
        channel_std: float32 `[c]`, likewise.
        cnn: `FeatureMapStore.cnn` of it.

    References:
    - [X. Luo et al., QARM, 2024](https://arxiv.org/abs/2411.11739)
    """

    centroids: np.ndarray
    channel_mean: np.ndarray
    channel_std: np.ndarray
    cnn: dict

    @classmethod
    def fit(cls, store, num_codes, seed=0):
        """Fits scikit-learn's `MiniBatchKMeans` to a store, level by level.

        Args:
            store: `FeatureMapStore`; at most `IMAGES_PER_CODE * num_codes` of its
                images, drawn at random, are in memory.
            num_codes: codes of a level; there are at most as many as images.
            seed: int.
        """
        rng, count = np.random.default_rng(seed), IMAGES_PER_CODE * num_codes
        rows = np.sort(store.rows) + 1
        if len(rows) > count:
            rows = np.sort(rng.choice(rows, count, replace=False))
        rest = np.concatenate([vectors for _, vectors in _vectors(store, rows)])
        centroids = []
        for _ in range(LEVELS):
            kmeans = cluster.MiniBatchKMeans(
                min(num_codes, len(rest)),
                batch_size=BATCH_SIZE,
                random_state=seed,
                compute_labels=False,
            )
            level = kmeans.fit(rest).cluster_centers_.astype(np.float32)
            rest = rest - level[metrics.pairwise_distances_argmin(rest, level)]
            centroids.append(level)
        of_store = store.channel_mean, store.channel_std, store.cnn
        return cls(np.stack(centroids), *of_store)

    @classmethod
    def load(cls, path):
        """Reads what `save` has written; `InputError` if that is damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                *arrays, cnn = (file[name] for name in ARRAYS)
            if arrays[0].shape[:1] != (LEVELS,):
                raise ValueError(f"{arrays[0].shape} and not {LEVELS} levels")
            return cls(*arrays, json.loads(str(cnn)))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(
                f"centroids: {path} has none of semantic_ids ({first_line(error)})"
            ) from error

    def save(self, path):
        """Writes a `.npz` file, whole or not at all."""
        arrays = (self.centroids, self.channel_mean, self.channel_std)
        named = dict(zip(ARRAYS, (*arrays, json.dumps(self.cnn)), strict=True))
        with new_file(path) as temporary, open(temporary, "wb") as handle:
            np.savez(handle, **named)

    def encode(self, store):
        """Codes of all images of a store.

        Args:
            store: `FeatureMapStore` of the same CNN; how its own maps are distributed
                changes nothing.

        Returns:
            `(codes, explained)`: int32 `[rows + 1, LEVELS]` by the row numbers of
            `FeatureMapStore.find`, −1 where there is no image; and the share of the
            vectors' sum of squares that is gone after each level, list.
        """
        store = store.standardised_as(self.channel_mean, self.channel_std)
        rows = np.sort(store.rows) + 1
        codes = np.full((rows.max() + 1, LEVELS), -1, np.int32)
        squares = np.zeros(LEVELS + 1)
        for some, rest in _vectors(store, rows):
            squares[0] += np.square(rest).sum()
            for level, centroids in enumerate(self.centroids.astype(np.float64)):
                nearest = metrics.pairwise_distances_argmin(rest, centroids)
                codes[some, level] = nearest
                rest = rest - centroids[nearest]
                squares[level + 1] += np.square(rest).sum()
        explained = 1 - squares[1:] / max(squares[0], np.finfo(float).tiny)
        return codes, explained.tolist()


def _vectors(store, rows):
    """Yields rows and their pooled, standardised maps, float64 `[N, c]`.

    Of 64 bits, so that which images share a batch changes no code.
    """
    pooled = pooled_maps.PooledMaps(store)
    for start in range(0, len(rows), BATCH_SIZE):
        some = rows[start : start + BATCH_SIZE]
        yield some, pooled.gather(tf.constant(some)).numpy().astype(np.float64)
