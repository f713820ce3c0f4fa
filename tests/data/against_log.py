"""Compares batches with the log from which they were made, in plain Python."""

import numpy as np

from tests.reference import read_maps, vocabulary_index

USER, CANDIDATE = ("user_id", "hour"), ("item_id", "category", "position")


class AgainstLog:
    """Compares the batches of a `Shop`, with the images of both sides."""

    def __init__(self, shop):
        self.log = shop.log.to_dict("records")
        self.maps = read_maps(shop.maps)
        self.nothing = np.zeros(shop.store.shape, np.float16)
        train = shop.log[shop.log.split == "train"]
        self.index = {
            name: {
                value: vocabulary_index(train[name], value)
                for value in set(shop.log[name])
            }
            for name in (*USER, *CANDIDATE)
            if name in shop.log
        }
        price = train.price.astype(np.float32).astype(float)
        self.mean, self.std = price.mean(), price.std(ddof=0)

    def check(self, batch):
        """Compares a batch; returns the rows of its requests, a list of lists."""
        inputs, labels, weights, keys = batch
        mask = inputs["candidate_mask"]
        assert labels.shape == (*mask.shape, 1) and weights.shape == mask.shape
        assert labels.dtype == weights.dtype == np.float32
        images, requests = set(), []
        for place, there in enumerate(mask):
            rows = keys["row"][place][there].tolist()
            requests.append(rows)
            shown = [self.log[row] for row in rows]
            assert len({(one["user_id"], one["timestamp"]) for one in shown}) == 1
            assert keys["user_key"][place] == shown[0]["user_id"]
            images |= self._check_user(inputs, place, shown[0])
            for candidate, one in zip(np.flatnonzero(there), shown, strict=True):
                spot = place, candidate
                assert labels[spot] == one["label"]
                assert weights[spot] == one.get("weight", 1)
                images.add(self._check_candidate(inputs, spot, one))
        self._check_images(inputs, images)
        # Candidates stand first, and what pads them is nothing.
        assert (mask == (np.arange(mask.shape[1]) < mask.sum(axis=1)[:, None])).all()
        assert (keys["row"][~mask] == -1).all()
        padding = [labels[..., 0], weights, inputs["candidate_image"], inputs["price"]]
        padding += [inputs[name] for name in CANDIDATE if name in inputs]
        assert all((values[~mask] == 0).all() for values in padding)
        return requests

    def _check_user(self, inputs, place, one):
        """Returns `(slot, image, category)` of each click."""
        for name in USER:
            assert inputs[name][place] == self.index[name][one[name]]
        clicks = [self.log[row] for row in one["history"]]
        for name in ("item_id", "category"):
            history = inputs[f"history_{name}"][place].tolist()
            expected = [self.index[name][click[name]] for click in clicks]
            assert history == expected + [0] * (len(history) - len(clicks))
        slots = inputs["history_image"][place].tolist()
        assert not any(slots[len(clicks) :])
        return {
            (slot, click["image"], click["category"])
            for slot, click in zip(slots[: len(clicks)], clicks, strict=True)
        }

    def _check_candidate(self, inputs, spot, one):
        """Returns its `(slot, image, category)`."""
        for name in set(CANDIDATE) & set(self.index):
            assert inputs[name][spot] == self.index[name][one[name]]
        price = (one["price"] - self.mean) / self.std
        assert abs(inputs["price"][spot] - price) < 1e-5
        return int(inputs["candidate_image"][spot]), one["image"], one["category"]

    def _check_images(self, inputs, images):
        for slot, image, category in images:
            expected = self.maps.get(image, self.nothing)
            np.testing.assert_array_equal(inputs["image_map"][slot], expected)
            assert (slot == 0) == (image not in self.maps)
            if slot:
                kind = inputs["image_category"][slot]
                assert kind == self.index["category"][category]
