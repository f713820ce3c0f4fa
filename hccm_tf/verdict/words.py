"""A verdict's numbers in words."""

from hccm_tf.models import name_of

BIG_GAP, SMALL_GAP = 0.05, 0.02  # of AUC, between training and validation


def lines(figures, configuration):
    """A verdict, one claim a line.

    Args:
        figures: dict of `hccm_tf.verdict.measure.measure`, with `photos` of
            `measure_photos` where it was measured.
        configuration: `Configuration` of the network.

    Returns:
        list of str.
    """
    following = advice(figures, configuration)
    said = [
        _constant(figures["constant"]),
        _popularity(figures["popularity"]),
        _trees(figures["trees"]),
        _overfitting(figures),
        _photos(figures.get("photos")),
        following and f"Next: {following}",
    ]
    return [line for line in said if line]


def advice(figures, configuration):
    """What to try next, str, `None` of a control; arguments as of `lines`."""
    photos, model = figures.get("photos"), configuration.model
    if configuration.settings.is_control:
        return None
    overfits = _gap(figures["overfitting"]) > BIG_GAP
    if figures["kept_epoch"] == figures["epochs"] and not overfits:
        return "more --epochs, as the last one was the best."
    if _outcome(figures["constant"]) != "better":
        return "a lower --learning_rate, as the click rate alone may say as much."
    if overfits:
        return "less to learn by heart with: smaller --hidden_units, more --dropout."
    if _outcome(figures["popularity"]) != "better":
        return "tfrecords_tools.validate, which says whether histories are empty."
    if _outcome(figures["trees"]) != "better":
        return "other settings, as --compare with --search_trials tries, or more data."
    if not model.has_images:
        return "--model=hccm with --feature_maps, which sees the photos."
    is_warm = configuration.warm_start_from is not None
    if "photos" not in figures and not is_warm:
        return "--check_photos, which says whether the photos seem to pay."
    if photos and _outcome(photos) != "better":
        cnn = "--backbone of extract_feature_maps"
        if model.takes_pixels:
            cnn = "--cnn_backbone"
        return f"photos of a larger --image_size, or another CNN: {cnn}."
    name = name_of(model)
    arms = f"din,{name},{name} --shuffle_images"
    begins = ", from scratch" * is_warm
    return f'--compare="{arms}"{begins}: what photos are worth, over seeds.'


def _constant(found):
    return found and (
        f"{_words(found, 'a constant')}: log loss {found['log_loss']:.4f} against "
        f"{found['base_log_loss']:.4f} of always saying the click rate in training, "
        f"{found['click_rate']:.2%} (lower by {_interval(found)})."
    )


def _popularity(found):
    return found and (
        f"{_words(found, 'popularity')}: AUC {found['auc']:.4f} against "
        f"{found['base_auc']:.4f} of each item's click rate, smoothed, in "
        f"{found['impressions']:,} impressions of training ({_interval(found)})."
    )


def _trees(found):
    if not found:
        return None
    photos = " and how like its photo is" if found["similarity"] != "none" else ""
    return (
        f"{_words(found, 'boosted trees')}: AUC {found['auc']:.4f} against "
        f"{found['base_auc']:.4f} of trees that count which clicks have what the item "
        f"has{photos}, from {found['impressions']:,} impressions ({_interval(found)})."
    )


def _overfitting(figures):
    found = figures["overfitting"]
    kept = f"epoch {figures['kept_epoch']} of {figures['epochs']} was kept"
    if not found:
        return f"Of its epochs, {kept}."
    words = "It does not overfit"
    if _gap(found) > SMALL_GAP:
        words = "It overfits" if _gap(found) > BIG_GAP else "It overfits a little"
    return (
        f"{words}: AUC {found['auc']:.4f} on impressions that it was trained on, "
        f"{found['base_auc']:.4f} on validation ({_interval(found)}); {kept}."
    )


def _photos(found):
    words = {
        "better": "Photos seem to pay",
        "worse": "Photos seem to do HARM",
        None: "Photos are not shown to pay",
    }
    return found and (
        f"{words[_outcome(found)]}: AUC {found['auc']:.4f} against "
        f"{found['base_auc']:.4f} of the same with the photos dealt out to other items "
        f"({_interval(found)}; one seed each)."
    )


def _words(found, rival):
    outcome = _outcome(found)
    if outcome is None:
        return f"Not shown to be better than {rival}"
    return f"{'Better' if outcome == 'better' else 'WORSE'} than {rival}"


def _outcome(found):
    """`"better"`, `"worse"`, or `None` where the interval holds 0; unknown is good."""
    if found is None or found["interval"][0] > 0:
        return "better"
    return "worse" if found["interval"][1] < 0 else None


def _gap(found):
    """By how much training is better than validation, as far as that is shown."""
    return found["gain"] if found and found["interval"][0] > 0 else 0.0


def _interval(found):
    low, high = found["interval"]
    return f"{found['gain']:+.4f}, 95% {low:+.4f} to {high:+.4f}"
