"""Warm-up requests, which TensorFlow Serving runs before a version takes traffic."""

import pathlib

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from hccm_tf.data import ids
from hccm_tf.data.folder import DataFolder
from hccm_tf.serving.inputs import request_name
from hccm_tf.serving.item_inputs import item_columns
from hccm_tf.serving.request import Impressions, impressions_request, rank_request
from hccm_tf.serving.whole import WARMUP

# TensorFlow Serving takes 1,000 records at most.
IMPRESSIONS = 32


def write_warmup(version, data_dir, signatures, images=None):
    """Writes a version's warm-up records, made of impressions of the training split.

    Args:
        version: folder of the SavedModel.
        data_dir: data folder.
        signatures: `hccm_tf.serving.signatures.Signatures` of the version.
        images: `ImageStore`, `None` without images.
    """
    schema, sides = signatures.schema, signatures.sides
    endpoints, with_images = signatures.endpoints(), images is not None
    impressions = Impressions(data_dir, "train", IMPRESSIONS)
    examples = np.array(impressions.examples, object)
    records = np.array(impressions.records, object)
    ranked = impressions.requests_to_rank()
    requests = {
        "serving_default": [
            impressions_request(rows, schema, with_images, sides)
            for rows in (impressions.rows[:1], impressions.rows)
        ],
        "rank": [
            rank_request(requests, schema, with_images, sides)
            for requests in ([ranked[0][:1]], ranked[:1], ranked)
            if "rank" in endpoints
        ],
        "rank_examples": [{"examples": records[:1]}, {"examples": records}],
        "serve_examples": [{"examples": examples[:1]}, {"examples": examples}],
    }
    requests["explain"] = requests["serving_default"]
    if with_images:
        catalogue = _images(data_dir, images)
        for name in ("encode_images", "image_keys"):
            spec = endpoints[name][1]
            requests[name] = [{column: catalogue[column] for column in spec}]
    if "encode_items" in endpoints:
        requests["encode_items"] = [_items(data_dir, schema)]
    logs = [_predict_log(n, r) for n in endpoints for r in requests.get(n, [])]
    logs += [_regress_log(examples[:1]), _regress_log(examples)]
    path = pathlib.Path(version) / WARMUP
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def _images(data_dir, images):
    """Some images of the catalogue with their categories and feature maps."""
    catalogue = DataFolder(data_dir).catalogue().slice(0, IMPRESSIONS)
    image = catalogue["image"].to_numpy().astype(object)
    rows = images.find(ids.image_keys(tf.constant(image)))
    return {
        "image": image,
        "category": catalogue["category"].to_numpy(),
        "image_map": images.gather(rows).numpy(),
    }


def _items(data_dir, schema):
    """The columns of some items of the catalogue that the item table has."""
    columns = ["item_id", *(feature.name for feature in item_columns(schema))]
    catalogue = DataFolder(data_dir).catalogue(columns).slice(0, IMPRESSIONS)
    return {request_name(name): catalogue[name].to_numpy() for name in columns}


def _predict_log(signature_name, request):
    log = prediction_log_pb2.PredictionLog()
    predict = log.predict_log.request
    predict.model_spec.signature_name = signature_name
    for name, values in request.items():
        predict.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return log


def _regress_log(serialized):
    log = prediction_log_pb2.PredictionLog()
    regress = log.regress_log.request
    regress.model_spec.signature_name = "regress"
    examples = regress.input.example_list.examples
    examples.extend(tf.train.Example.FromString(example) for example in serialized)
    return log
