"""FuxiCTR's DIN (its model zoo, PyTorch) with its own training step."""

import tempfile

import torch
from fuxictr.features import FeatureMap
from model_zoo.LongCTR.DIN.DIN import DIN
from workload import (
    ATTENTION_HIDDEN_UNITS,
    EMBEDDING_DIM,
    HIDDEN_UNITS,
    LEARNING_RATE,
    SIZES,
    serve,
)


def make_train(batches, activation):
    folder = tempfile.mkdtemp()
    feature_map = FeatureMap("benchmark", folder)
    for name, size in SIZES.items():
        feature_map.features[name] = {
            "type": "categorical",
            "source": "item" if name == "item_id" else "",
            "vocab_size": size,
            "embedding_dim": EMBEDDING_DIM,
        }
    feature_map.features["item_id"]["padding_idx"] = 0
    feature_map.labels = ["label"]
    model = DIN(
        feature_map,
        dnn_hidden_units=list(HIDDEN_UNITS),
        attention_hidden_units=list(ATTENTION_HIDDEN_UNITS),
        attention_hidden_activations={"dice": "Dice", "relu": "ReLU"}[activation],
        embedding_dim=EMBEDDING_DIM,
        learning_rate=LEARNING_RATE,
        optimizer="adam",
        loss="binary_crossentropy",
        metrics=["AUC"],
        model_root=folder,
        verbose=0,
    )
    model.train()
    model._batch_index, model._max_gradient_norm = 0, 10.0
    ready = []
    for features, history, length, label in batches:
        columns = {name: torch.from_numpy(ids) for name, ids in features.items()}
        items = torch.cat(
            [torch.from_numpy(history), columns.pop("item_id")[:, None]], dim=1
        )
        mask = torch.arange(history.shape[1]) < torch.from_numpy(length)[:, None]
        columns["label"] = torch.from_numpy(label)
        ready.append((columns, items.flatten(), mask.float()))

    def train(steps):
        for step in range(steps):
            columns, items, mask = ready[step % len(ready)]
            model.train_step((columns, {"item_id": items}, mask))

    return train, sum(p.numel() for p in model.parameters())


serve(make_train)
