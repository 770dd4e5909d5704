"""The detector that a config asks for."""

from recipes.detection import backbones
from recipes.detection import retinanet
from recipes.errors import RecipeError
from recipes.models import norms
from recipes.models import pretrained

# The norm that uses what a batch norm has learned is none for what is new.
ONLY_KEEPS = "frozen"


def make(config, data):
    """The network of a run: new, on a classifier of a file, or a detector's.

    Raises:
        RecipeError: for a name or a file that cannot be.
    """
    if config.max_level < backbones.LEVELS[-1]:
        raise RecipeError(
            f"--max_level must be at least {backbones.LEVELS[-1]}, the level "
            "of the backbone's coarsest map. "
            f"Received: max_level={config.max_level}"
        )
    shape = data.image_shape
    if config.init_model is None:
        norm = norms.get_norm(config)
        backbone = backbones.make(config.model, norm, shape)
        return _on(backbone, norm, config, data.num_classes)
    path, to_norm = config.init_model, norms.get_conversion_norm(config)
    model, notes = pretrained.read_model(path, to_norm, config.precision)
    for note in notes:
        print(note)
    if retinanet.is_detector(model):
        _check(path, model, config, data)
        return model
    # A run that started from a classifier has a detector in its own saves.
    if config.takes_whole_model:
        raise RecipeError(
            f"--checkpoint={path} is no detector: train one with "
            f"--init_model={path} first."
        )
    backbone = backbones.out_of(path, model, shape)
    if to_norm is None or config.convert_to == ONLY_KEEPS:
        to_norm = norms.get_norm(config)
    print(
        f"{model.name} is the backbone; pyramid and heads are new, with "
        f"{to_norm.name}."
    )
    return _on(backbone, to_norm, config, data.num_classes)


def _on(backbone, norm, config, num_classes):
    with norms.report_build_errors("pyramid and heads", norm):
        return retinanet.make(
            backbone,
            norm,
            config.anchors,
            num_classes,
            config.pyramid_filters,
            config.head_depth,
        )


def _check(path, model, config, data):
    """Refuses a detector of other images, anchors or classes."""
    taken = tuple(model.inputs[0].shape[1:])
    if taken != tuple(data.image_shape):
        raise RecipeError(
            f"--init_model={path} takes images of {taken}, and this run gives "
            f"{tuple(data.image_shape)}: change --image_size."
        )
    _, num_anchors, num_classes = model.output[retinanet.CLASSES].shape
    if num_classes != data.num_classes:
        raise RecipeError(
            f"--init_model={path} knows {num_classes} classes, and "
            f"{config.dataset} has {data.num_classes}."
        )
    same_number = num_anchors == config.anchors.num_anchors
    if not (same_number and retinanet.has_anchors(model, config.anchors)):
        raise RecipeError(
            f"--init_model={path}, {model.name!r}, has {num_anchors:,} anchors "
            f"and this pyramid {config.anchors.num_anchors:,}, of size "
            f"{config.anchor_size} on the levels {config.min_level} to "
            f"{config.max_level}: give the --anchor_size, --min_level and "
            "--max_level that it was trained with."
        )
