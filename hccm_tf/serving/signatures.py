"""The signatures of an export: raw columns to answers, in graph operations.

| signature | inputs | outputs |
|---|---|---|
| `serving_default` | impressions | `ctr [B]` |
| `rank` | R requests: one user, N candidates | `ctr [R, N]` |
| `rank_examples` | `examples [R]`, serialized `tf.train.Example` | `ctr [R, N]` |
| `serve_examples` | `examples [B]`, the same with one candidate each | `ctr [B]` |
| `regress` | `inputs [B]`, likewise, for the Regress API | `outputs [B]` |
| `explain` | impressions | `history_attention`, `image_attention [B, T]` |
| | | and, of `multi_query`, `image_attention_by_ids [B, T]` |
| `encode_images` | `image_map [U, h, w, c]`, `category [U]` | `representation [U, D]` |
| | | and, where there is one, `channel_attention [U, c]` |
| `image_keys` | `image [U]`, `category [U]` | `key [U]`, the table's |
| `encode_items` | `item_id`, the items' columns `[U]` | those, as the item table's |

`image_map` has feature maps, float16, or for `cscnn` pixels, uint8. A model that takes
the images of one side only has no input for those of the other.

Columns are as in the log, and so are the names of their inputs, unless TensorFlow does
not carry them, see `hccm_tf.data.column_names`. Columns of the items but for `item_id`
and `image` are no inputs, nor are clicks': a table has them by `item_id`, of unknown
items as missing. Examples may give them, of all their candidates or of all clicks, and
what they give counts. Scalars are `[B]`; histories `[B, T]`, oldest click first, of
which the first `history_length [B]` places count. `rank` has `[R]` for user and
context, `[R, N]` for the candidates, and `candidate_mask [R, N]`;
the answer at masked places is 0. Images are names as in the catalogue, empty for none.
Examples are requests as `tfrecords_tools.build_examples` writes them: each of the
candidates' columns has a value for each candidate. N of `rank_examples` is that of the
longest request; behind a shorter one's candidates the answer is 0. T of `explain` is
that of the longest history, at most `max_history`: the newest clicks, oldest first.

Unknown ids have the out-of-vocabulary row, unknown images are no image, numbers that
are not finite are the training split's mean, in feature maps 0. Inputs whose sizes do
not fit each other, and a `history_length` beyond its histories, are an
`InvalidArgumentError` that names one; a record that is no example is a `DataLossError`.
"""

import tensorflow as tf

from hccm_tf.data import ids
from hccm_tf.data.feature import HISTORY_IMAGE
from hccm_tf.data.item_features import carried
from hccm_tf.data.parsing import parse_spec
from hccm_tf.serving import item_inputs
from hccm_tf.serving.checks import (
    require_equal,
    require_examples,
    require_within,
    with_equal_sizes,
)
from hccm_tf.serving.inputs import impression_spec, request_name
from hccm_tf.serving.vocabularies import in_variables

# What signatures have in common is in an export once: the time to load one grows with
# the size of its graph.
_shared = tf.function(autograph=False)
IMAGE_COLUMNS = {"candidate": "image", "history": HISTORY_IMAGE}


class Signatures:
    """The functions behind the signatures of one model.

    Args:
        definition: `hccm_tf.models.Model`.
        forms: of `definition.forms`.
        table: `RepresentationTable`, `None` without images.
        items: `ItemTable`, `None` where the schema has nothing `of_items`.
    """

    def __init__(self, definition, forms, table=None, items=None):
        self.schema = in_variables(definition.schema)
        self.carried = carried(self.schema)
        self.forms, self.table, self.items = forms, table, items
        self.sides = definition.sides
        self.histories = [f.name for f in self.carried.sequences]
        if "history" in self.sides and HISTORY_IMAGE not in self.schema:
            self.histories.append(HISTORY_IMAGE)

    def endpoints(self):
        """Name → `(function, input signature)` of each signature."""
        with_images = self.table is not None
        sides = self.sides
        impressions = impression_spec(self.schema, with_images, sides=sides)
        endpoints = {
            "serving_default": (self.serving_default, impressions),
            "serve_examples": (
                self.serve_examples,
                tf.TensorSpec([None], tf.string, "examples"),
            ),
            "regress": (self.regress, tf.TensorSpec([None], tf.string, "inputs")),
        }
        if "rank" in self.forms:
            spec = impression_spec(
                self.schema, with_images, many_candidates=True, sides=sides
            )
            endpoints["rank"] = self.rank, spec
            examples = tf.TensorSpec([None], tf.string, "examples")
            endpoints["rank_examples"] = self.rank_examples, examples
        if "explain" in self.forms:
            endpoints["explain"] = self.explain, impressions
        if with_images:
            maps = self.forms["encode_images"].input["image_map"]
            maps = tf.TensorSpec(maps.shape, maps.dtype, "image_map")
            images = {"image": tf.TensorSpec([None], tf.string, "image")}
            category = {}
            if self.table.by_category:
                dtype = self.schema["category"].dtype
                category["category"] = tf.TensorSpec([None], dtype, "category")
            endpoints["encode_images"] = (
                self.encode_images,
                {"image_map": maps, **category},
            )
            endpoints["image_keys"] = self.image_keys, {**images, **category}
        if self.items is not None:
            endpoints["encode_items"] = self.encode_items, item_inputs.spec(self.schema)
        return endpoints

    def serving_default(self, request):
        """`ctr [B]` of impressions."""
        return {"ctr": self._ctr(*self._told(*self._raw(request)))}

    def serve_examples(self, examples):
        """`ctr [B]` of serialized `tf.train.Example`s with one candidate each."""
        raw = self._parsed(examples, many_candidates=False)
        one = tf.ones(tf.shape(examples), tf.int64)
        given = item_inputs.given_lengths(self.schema, raw, one)
        sizes, names = [one, *given.values()], ["item_id", *given]
        with require_equal(sizes, names, "numbers of values"):
            raw.update({name: tf.identity(raw[name]) for name in given})
        return {"ctr": self._ctr(*self._told(raw, self._without_names(raw)))}

    def regress(self, inputs):
        """`serve_examples` under the names of the Regress API."""
        return {"outputs": self.serve_examples(inputs)["ctr"]}

    def rank(self, request):
        """`ctr [R, N]` of N candidates for each of R users."""
        names = [request_name(name) for name in self._candidate_columns()]
        names = sorted([*names, "candidate_mask"])
        request = with_equal_sizes(request, names, 1, "numbers of candidates")
        told = self._told(*self._raw(request))
        return {"ctr": self._ranked(request["candidate_mask"], *told)}

    def rank_examples(self, examples):
        """`ctr [R, N]` of serialized `tf.train.Example`s with up to N candidates."""
        raw = self._parsed(examples, many_candidates=True)
        names = self._candidate_columns()
        sizes = [raw[name].row_lengths() for name in names]
        given = item_inputs.given_lengths(self.schema, raw, sizes[0])
        all_sizes, all_names = [*sizes, *given.values()], [*names, *given]
        with require_equal(all_sizes, all_names, "numbers of candidates"):
            raw.update({name: raw[name].to_tensor() for name in names})
        mask = tf.sequence_mask(sizes[0], tf.shape(raw[names[0]])[1])
        told = self._told(raw, self._without_names(raw))
        return {"ctr": self._ranked(mask, *told)}

    def explain(self, request):
        """The attentions' weights `[B, T]` of each click, 0 where there is none."""
        inputs = self._inputs(*self._told(*self._raw(request)))
        return self.forms["explain"](inputs, training=False)

    def encode_images(self, request):
        """`representation [U, D]` and what else the encoder explains."""
        category = self._category(request, "image_map")
        maps = tf.convert_to_tensor(request["image_map"])
        if maps.dtype.is_floating:
            maps = tf.where(tf.math.is_finite(maps), maps, tf.zeros([], maps.dtype))
        # One image more, because oneDNN's convolutions need one.
        inputs = {
            "image_map": tf.pad(maps, [[0, 1]] + 3 * [[0, 0]]),
            "image_category": tf.pad(category, [[0, 1]]),
        }
        outputs = self.forms["encode_images"](inputs, training=False)
        if not isinstance(outputs, dict):
            outputs = {"representation": outputs}
        return {name: values[:-1] for name, values in outputs.items()}

    def image_keys(self, request):
        """`key [U]`, under which the table has an image."""
        images = ids.image_keys(request["image"])
        return {"key": ids.pair_keys(images, self._category(request, "image"))}

    def encode_items(self, request):
        """The columns of items `[U]` as the item table has them."""
        request = with_equal_sizes(request, sorted(request), 0, "numbers of items")
        return item_inputs.encode(self.schema, request)

    def _category(self, request, images):
        """Category indices; 1 for all if the encoder does not look at them."""
        if not self.table.by_category:
            return tf.ones(tf.shape(request[images])[:1], tf.int32)
        names = [images, "category"]
        request = with_equal_sizes(request, names, 0, "numbers of images")
        return self.schema.index("category", request["category"])

    @_shared
    def _raw(self, request):
        """The columns of a request in the form that a data set has them.

        And, by their names, the checks of the images that the model takes: unlike a
        data set, a request names images of which two may have one key.
        """
        request = with_equal_sizes(request, sorted(request), 0, "numbers of rows")
        if self.histories:
            names = [request_name(name) for name in self.histories]
            request = with_equal_sizes(request, names, 1, "widths")
            width = tf.shape(request[names[0]], tf.int64)[1]
            length = require_within(request["history_length"], width)
        raw = {name: request[request_name(name)] for name in self._columns()}
        for name in self.histories:
            raw[name] = tf.RaggedTensor.from_tensor(raw[name], lengths=length)
        checks = {
            name: tf.ragged.map_flat_values(ids.to_checks, raw[name])
            for name in self._images()
        }
        for name in IMAGE_COLUMNS.values():
            if name in raw:
                raw[name] = tf.ragged.map_flat_values(ids.image_keys, raw[name])
        return raw, checks

    def _images(self):
        """Names of the columns of the images that the model takes."""
        return [IMAGE_COLUMNS[side] for side in self.sides]

    def _without_names(self, raw):
        """Checks as of `_raw` where images are known by their keys alone."""
        return {name: -tf.ones_like(raw[name]) for name in self._images()}

    def _columns(self):
        """Names of the columns that a ranker's inputs are made of."""
        columns = [f.name for f in self.carried.scalars] + self.histories
        if "candidate" in self.sides:
            columns.append("image")
        return sorted(set(columns))

    def _candidate_columns(self):
        """Names of those that `rank` has of each candidate."""
        columns = {f.name for f in self.carried.scalars if f.candidate}
        if "candidate" in self.sides:
            columns.add("image")
        return sorted(columns)

    def _parsed(self, examples, many_candidates):
        """The columns of serialized `tf.train.Example`s."""
        spec = parse_spec(self.schema, many_candidates)
        spec = {name: spec[name] for name in self._columns()}
        spec |= item_inputs.parse_spec(self.schema)
        return tf.io.parse_example(require_examples(examples), spec)

    def _told(self, raw, checks):
        """The same of what is carried alone, and what items' columns become.

        So that examples, which may give these, share what follows with requests.
        """
        of_items = {} if self.items is None else self._look_up(raw)
        return {name: raw[name] for name in self._columns()}, checks, of_items

    @_shared
    def _look_up(self, raw):
        return item_inputs.look_up(self.schema, self.items, raw)

    @_shared
    def _inputs(self, raw, checks, of_items):
        """What a ranker takes, of raw columns with ragged histories, see `_told`."""
        lengths = [raw[name].row_lengths() for name in self.histories]
        with require_equal(lengths, self.histories, "lengths"):
            inputs = self.carried.index_all(raw) | of_items
        one = tf.ones([], tf.int32)
        for name in self.sides:
            image = IMAGE_COLUMNS[name]
            column, keys, check = "category", raw[image], checks[image]
            if name == "history":
                column = "history_category"
                keys, check = (
                    self.schema.pad_history(self.schema.truncate(clicks))
                    for clicks in (keys, check)
                )
            category = inputs.get(column, tf.broadcast_to(one, tf.shape(keys)))
            rows = self.table.find(keys, category, check)
            inputs[f"{name}_image"] = rows
            inputs[f"{name}_representation"] = self.table.look_up(rows)
        return inputs

    @_shared
    def _ctr(self, *told):
        ctr = self.forms["ranker"](self._inputs(*told), training=False)[:, 0]
        return self.schema.unsampled(ctr)

    @_shared
    def _ranked(self, mask, *told):
        inputs = {**self._inputs(*told), "candidate_mask": mask}
        ctr = self.forms["rank"](inputs, training=False)[..., 0]
        return tf.where(mask, self.schema.unsampled(ctr), 0.0)
