# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From photos and clicks to an answer
#
# Which of ten items will a user click? We make a small shop, train two models on its
# log, look at what the better one learned, and ask it a question as a server would.
# `make docs` has run every cell of this page; [the same as a notebook](tutorial.ipynb).
#
# The shop is **synthetic**: its photos are drawn and its users are simulated. So we
# know what the users like, and can see whether a model has found out.

# %% tags=["quiet"]
import json
import os

os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"  # before TensorFlow, as the commands do

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image

from hccm_tf import CTREstimator
from hccm_tf.data import Schema
from hccm_tf.explanation.values import explain
from hccm_tf.serving.request import Impressions, rank_request

pd.set_option("display.notebook_repr_html", False)
plt.rcParams.update({"figure.dpi": 110, "font.size": 9})

# %% [markdown]
# ## A shop
#
# One command draws the photos and writes two tables. A shop of your own has the same
# two.

# %% language="bash"
# python -m tfrecords_tools.make_demo --output_dir=shop --items=1000 --users=250 \
#     --impressions=60000 --request_size=10

# %% [markdown]
# The **catalogue** has a row for each item.

# %%
items = pd.read_csv("shop/items.csv")
items.head(3)

# %% [markdown]
# The **log** has a row for each *impression*: an item that a user was shown, and
# whether the user clicked it. Ten impressions of one user and second are one *request*.

# %%
log = pd.read_csv("shop/impressions.csv")
log.head(3)

# %% [markdown]
# Here is what one user clicked, by category. Look for what the photos of a row have in
# common: for some categories it is the colour, for others the pattern or the shape.


# %%
def photo(name):
    return np.asarray(Image.open(f"shop/images/{name}"))


def show(axis, name, title=""):
    axis.imshow(photo(name))
    axis.set_title(title, fontsize=8)
    axis.set_axis_off()


user = log[log.label == 1].user_id.value_counts().index[0]
clicked = log[(log.user_id == user) & (log.label == 1)].merge(items, on="item_id")
figure, axes = plt.subplots(3, 8, figsize=(7.5, 3.4))
for row, category in zip(axes, ["dress", "scarf", "mirror"], strict=True):
    found = clicked[clicked.category == category].drop_duplicates("item_id")
    for axis in row:
        axis.set_axis_off()
    for axis, name in zip(row, found.image, strict=False):
        show(axis, name)
    row[0].set_title(f"{category}, clicked", fontsize=9, loc="left")
figure.tight_layout()

# %% [markdown]
# ## Feature maps
#
# A fixed CNN looks at each photo once. What it sees is kept as a *feature map*: a small
# grid of numbers with many channels. The CNN has random weights here, because trained
# ones are a download; leave out the last three flags for your own photos.

# %% language="bash"
# python -m tfrecords_tools.extract_feature_maps --items=shop/items.csv \
#     --image_dir=shop/images --output_dir=maps \
#     --weights=random --image_size=33 --layer=expanded_conv_1_depthwise_bn

# %% [markdown]
# ## Training data
#
# The next command joins the log with the catalogue. It gives each request the user's
# *history*: what the user clicked before that second, and nothing later.

# %% language="bash"
# python -m tfrecords_tools.build_examples --items=shop/items.csv \
#     --impressions=shop/impressions.csv --output_dir=data --max_history=50

# %% [markdown]
# ## Two models
#
# `din` knows ids, categories and prices, and which clicks resemble the candidate in
# them. `hccm` sees the photos, too. Both get the same settings.

# %%
settings = {
    "epochs": 5,
    "patience": 2,
    "learning_rate": 2e-3,
    "dropout": 0.3,
    "id_dropout": 20,
    "products": True,
    "attention_activation": "relu",
}
of_images = {
    "similarity": "cosine",
    "image_attention": "dot_product",
    "image_embedding_dim": 64,
    "cnn_filters": (32, 64),
}
din = CTREstimator("din", run_dir="runs/din", **settings)
hccm = CTREstimator(
    "hccm", feature_maps="maps", run_dir="runs/hccm", **settings, **of_images
)

# %% tags=["quiet"]
din.fit("data")
hccm.fit("data")

# %% [markdown]
# A *run* writes its epochs to `history.csv`. The epoch with the best AUC on the
# validation split is the one that is kept.

# %%
figure, axis = plt.subplots(figsize=(6, 3))
for name in ("din", "hccm"):
    epochs = pd.read_csv(f"runs/{name}/history.csv")
    axis.plot(epochs.epoch + 1, epochs.val_auc, marker="o", label=name)
axis.set(xlabel="epoch", ylabel="AUC on validation", xticks=epochs.epoch + 1)
axis.legend()
figure.tight_layout()

# %% [markdown]
# ## Which is better?
#
# The *test* split is the newest tenth of the log; nothing was chosen by it. AUC is the
# share of pairs of a clicked and an unclicked impression that a model puts in the right
# order. The *oracle* is the simulator's own click probability, the ceiling for any
# model.

# %%
oracle = json.load(open("shop/oracle.json"))
scores = {"din": din.evaluate("data"), "hccm": hccm.evaluate("data"), "oracle": oracle}
table = pd.DataFrame(scores).T[["auc", "gauc", "log_loss", "calibration"]].astype(float)
table.round(4)

# %% [markdown]
# One run with one seed is no proof. [Comparing honestly](comparing.md) says how to get
# one.
#
# ## What did the attention look at?
#
# The model weighs the clicks of a history by the candidate. Here are some impressions:
# the candidate on the left, then the eight clicks with the highest weights. A weight of
# 1 is what each click would have if all counted the same.

# %%
explained = explain(hccm.fitted_.trained, hccm.fitted_.batches_of("data"), 200)
chosen = {}
for impression in explained:
    category = impression.row["category"][0].decode()
    if len(impression.row["history_image"]) >= 30:
        chosen.setdefault(category, impression)
figure, axes = plt.subplots(3, 9, figsize=(7.8, 3.6))
for row, category in zip(axes, ["lamp", "carpet", "mirror"], strict=True):
    impression = chosen[category]
    weights = impression.attention["image_attention"]
    weights = weights / weights.mean()
    show(
        row[0],
        impression.row["image"][0].decode(),
        f"{category}\nCTR {impression.ctr:.2f}",
    )
    for axis, click in zip(row[1:], np.argsort(-weights)[:8], strict=True):
        name = impression.row["history_image"][click].decode()
        of = impression.row["history_category"][click].decode()
        show(axis, name, f"{of}\n{weights[click]:.1f}")
figure.tight_layout()

# %% [markdown]
# ## The case study
#
# `hccm` tells its small CNN the category of the item, which weighs the channels of the
# feature map anew. Take one photo and pretend that it belongs to other categories: how
# far do the channels' weights move? Categories that are bought for the same thing
# should agree with each other more than with the rest.

# %%
impression = next(e for e in explained if e.channels)
figure, axes = plt.subplots(
    1, 2, figsize=(7.5, 2.8), width_ratios=[1, 3], layout="constrained"
)
show(axes[0], impression.row["image"][0].decode())
order = np.argsort(-impression.channels[impression.row["category"][0].decode()])
for name, weights in impression.channels.items():
    axes[1].plot(weights[order], label=name, linewidth=1)
axes[1].set(
    xlabel="channel, sorted by its weight for the own category", ylabel="weight"
)
axes[1].legend(title="as if it were a")
plt.show()

# %% [markdown]
# The order of the channels for two categories, compared over all nine by rank
# correlation (1: the same order):

# %%
names = [
    "dress",
    "lamp",
    "cup",
    "scarf",
    "carpet",
    "cushion",
    "earring",
    "mirror",
    "clock",
]
encoder = hccm.fitted_.trained.definition.forms(hccm.model_)["encode_images"]
index = hccm.schema_.index("category", tf.constant(names))
maps = tf.stack([impression.feature_map] * len(names))
weights = encoder.predict_on_batch({"image_map": maps, "image_category": index})
ranks = pd.DataFrame(weights["channel_attention"].T, columns=names).rank()
figure, axis = plt.subplots(figsize=(5, 4), layout="constrained")
picture = axis.imshow(ranks.corr(), vmin=-1, vmax=1, cmap="RdBu_r")
axis.set_xticks(range(9), names, rotation=45)
axis.set_yticks(range(9), names)
figure.colorbar(picture, label="rank correlation")
plt.show()

# %% [markdown]
# Of the nine, the first three are bought for their colour, the next three for their
# pattern, the last three for their shape. Nobody tells the model. Where two categories
# of one kind are dark red, it has found out that the same channels count for both. It
# has five epochs, a few thousand requests and a CNN of random weights for that; do not
# expect all of it. With ImageNet weights and 24 epochs, `hccm` has reached an AUC of
# 0.75 on a shop of this kind, see [all measurements](benchmarks.md).
#
# ## An answer
#
# An *export* is a SavedModel, which a server loads without this package. It holds a
# vector for every photo, so that a request carries names and ids and no CNN runs.

# %% tags=["quiet"]
hccm.export("saved_models/hccm")

# %%
served = tf.saved_model.load("saved_models/hccm/1").signatures["rank"]
request = Impressions("data", "test", 10).requests_to_rank()[:1]
tensors = rank_request(request, Schema.load("data"), with_images=True)
ctr = served(**{name: tf.constant(value) for name, value in tensors.items()})["ctr"][0]

figure, axes = plt.subplots(1, len(ctr), figsize=(8, 1.4))
for axis, place in zip(axes, np.argsort(-ctr), strict=True):
    show(axis, request[0][place]["image"][0].decode(), f"{ctr[place]:.2f}")
figure.tight_layout()

# %% [markdown]
# These are ten items, in the order in which the model would show them to the user of
# the first test impression, with click probabilities. [Serving](serving.md) goes on
# from here, and [your own data](own_data.md) says what your tables should look like.
