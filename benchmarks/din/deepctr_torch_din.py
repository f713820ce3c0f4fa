"""DeepCTR-Torch's DIN with the training step of its `fit`."""

import torch
from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat
from deepctr_torch.models import DIN
from workload import (
    ATTENTION_HIDDEN_UNITS,
    EMBEDDING_DIM,
    HIDDEN_UNITS,
    ITEMS,
    LEARNING_RATE,
    MAX_HISTORY,
    SIZES,
    serve,
)


def make_train(batches, activation):
    columns = [SparseFeat(n, size, EMBEDDING_DIM) for n, size in SIZES.items()]
    history = SparseFeat("hist_item_id", ITEMS, EMBEDDING_DIM, embedding_name="item_id")
    columns.append(VarLenSparseFeat(history, MAX_HISTORY, length_name="length"))
    model = DIN(
        columns,
        ["item_id"],
        dnn_hidden_units=HIDDEN_UNITS,
        att_hidden_size=ATTENTION_HIDDEN_UNITS,
        att_activation={"dice": "Dice", "relu": "relu"}[activation],
        l2_reg_embedding=0,
    )
    model.compile(torch.optim.Adam(model.parameters(), LEARNING_RATE), None)
    model.train()
    ready = []
    for features, history, length, label in batches:
        values = {n: torch.from_numpy(ids)[:, None] for n, ids in features.items()}
        values["hist_item_id"] = torch.from_numpy(history)
        values["length"] = torch.from_numpy(length)[:, None]
        x = torch.cat([values[name] for name in model.feature_index], dim=1).float()
        ready.append((x, torch.from_numpy(label)))

    def train(steps):
        for step in range(steps):
            x, label = ready[step % len(ready)]
            prediction = model(x).squeeze()
            model.optim.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy(
                prediction, label, reduction="sum"
            )
            (loss + model.get_regularization_loss() + model.aux_loss).backward()
            model.optim.step()

    return train, sum(p.numel() for p in model.parameters())


serve(make_train)
