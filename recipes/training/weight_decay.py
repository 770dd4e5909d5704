"""What decays: every trainable weight, but for those of norms."""

# Weights that decay would pull to the floor they start from, or to a scale of
# zero.
NORM_WEIGHTS = (
    "gamma",
    "beta",
    "tau",
    "alpha",
    "learned_epsilon",
    "center_weight",
    "scale_weight",
    "scale_bias",
)
# Optimizers that shrink the weight itself, apart from the gradient. Under the
# others decay is a gradient, `decay * w`.
DECOUPLED = ("adamw", "lamb")


def spared(weights, norm_weight_decay):
    """The weights that do not decay.

    Args:
        weights: List of the trainable weights of a model.
        norm_weight_decay: Whether those of norms and thresholds decay too.
    """
    if norm_weight_decay:
        return []
    return [weight for weight in weights if weight.name in NORM_WEIGHTS]
