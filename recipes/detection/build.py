"""Builds the detector of a run from its config."""

from recipes.detection import backbones
from recipes.detection import retinanet
from recipes.errors import RecipeError
from recipes.models import norms
from recipes.models import pretrained

# This norm reuses the statistics of trained batch norms, so that newly
# initialized layers cannot have it.
CONVERSION_ONLY_NORM = "frozen"


def build_detector(config, data, fit=None):
    """Builds the detector of a run, or loads it from `--init_model`.

    `--init_model` may name a detector, or a classifier that becomes the
    backbone of a new detector.

    Args:
        config: A `DetectionConfig`.
        data: The `Data` of the run.
        fit: As in `pretrained.read_model`.

    Returns:
        A Functional model, see `retinanet.build_retinanet`.

    Raises:
        RecipeError: if a name is unknown or a file does not match the config.
    """
    if config.max_level < backbones.LEVELS[-1]:
        raise RecipeError(
            f"--max_level must be at least {backbones.LEVELS[-1]}, the level "
            "of the coarsest map of the backbone. "
            f"Received: max_level={config.max_level}"
        )
    shape = data.image_shape
    if config.init_model is None:
        norm = norms.get_norm(config)
        backbone = backbones.build_backbone(config.model, norm, shape)
        return _add_heads(backbone, norm, config, data.num_classes)
    path, to_norm = config.init_model, norms.get_conversion_norm(config)
    model, notes = pretrained.read_model(path, to_norm, config.precision, fit)
    for note in notes:
        print(note)
    if retinanet.is_detector(model):
        _check_detector(path, model, config, data)
        return model
    # The checkpoints of a run that started from a classifier hold detectors.
    if config.takes_whole_model:
        raise RecipeError(
            f"--checkpoint={path} is not a detector. Train one first with "
            f"--init_model={path}."
        )
    backbone = backbones.extract_backbone(path, model, shape)
    if to_norm is None or config.convert_to == CONVERSION_ONLY_NORM:
        to_norm = norms.get_norm(config)
    print(
        f"{model.name} is the backbone; pyramid and heads are newly "
        f"initialized with {to_norm.name}."
    )
    return _add_heads(backbone, to_norm, config, data.num_classes)


def _add_heads(backbone, norm, config, num_classes):
    with norms.report_build_errors("pyramid and heads", norm):
        return retinanet.build_retinanet(
            backbone,
            norm,
            config.anchors,
            num_classes,
            config.pyramid_filters,
            config.head_depth,
        )


def _check_detector(path, model, config, data):
    """Raises an error for other image sizes, anchors or classes."""
    shape = tuple(model.inputs[0].shape[1:])
    if shape != tuple(data.image_shape):
        raise RecipeError(
            f"--init_model={path} expects images of {shape}, but this run has "
            f"images of {tuple(data.image_shape)}. Change --image_size."
        )
    _, num_anchors, num_classes = model.output[retinanet.CLASSES].shape
    if num_classes != data.num_classes:
        raise RecipeError(
            f"--init_model={path} has {num_classes} classes, but "
            f"--dataset={config.dataset} has {data.num_classes}."
        )
    same_number = num_anchors == config.anchors.num_anchors
    if not (same_number and retinanet.has_anchors(model, config.anchors)):
        raise RecipeError(
            f"--init_model={path}, {model.name!r}, has {num_anchors:,} "
            f"anchors, but this run has {config.anchors.num_anchors:,} of size "
            f"{config.anchor_size} on the levels {config.min_level} to "
            f"{config.max_level}. Set --anchor_size, --min_level and "
            "--max_level to the values of its training."
        )
