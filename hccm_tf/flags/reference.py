"""The reference page of `train_main.py`'s flags."""

from hccm_tf.configuration import readable
from hccm_tf.flags.groups import all_groups, own_fields
from hccm_tf.flags.help import default_text
from hccm_tf.options import describe, kind_of

HEAD = """\
# The flags of train_main.py

Made from the options' own descriptions. A flag that is typed, or stands in an arm of
`--compare`, and that the model does not read is an error; one of a flagfile, which
models share, is named and left out. In Python,
`CTREstimator` takes the options of training and of the models by the same names.
"""


def reference(models):
    """The page as Markdown.

    Args:
        models: subclasses of `hccm_tf.models.Model`.
    """
    lines = [HEAD]
    for options, readers in all_groups(models).items():
        lines.append(f"## {options.__doc__.partition('.')[0]}\n")
        if readers is not None and len(readers) < len(models):
            names = ", ".join(f"`{model.name}`" for model in readers)
            lines.append(f"Read by {names}.\n")
        lines += ["| flag | default | meaning |", "|---|---|---|"]
        for field in own_fields(options):
            name = f"[no]{field.name}" if kind_of(field) is bool else field.name
            default = "" if field.default is None else f"`{default_text(field)}`"
            meaning = describe(field).replace("|", "\\|")
            needs = field.metadata["needs"]
            if needs is not None:
                reads = (f"`{m.name}`" for m in models if field.name in readable(m))
                meaning += f" Read by {', '.join(reads)}."
            lines.append(f"| `--{name}` | {default} | {meaning} |")
        lines.append("")
    return "\n".join(lines)
