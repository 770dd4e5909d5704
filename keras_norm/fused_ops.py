"""The two passes over a feature map that layers consist of.

A layer reads its input once for the moments of planes, computes a factor and an
offset per plane, and reads the input again to apply them. Both passes have
custom gradients: the backward pass of the second reads the input and the
incoming gradient once for sums, and one final pass writes the gradient of the
input. Only the input and per-plane values are kept for the backward pass. The
backend differentiates everything in between.

Shapes, channels last: `x (N, H, W, C)`, planes `(N, 1, 1, C)`.
"""

import keras
from keras import ops

from keras_norm import functional
from keras_norm._xla_cpu import materialize
from keras_norm._xla_cpu import plane_sums


def mean_square(x, axes, count):
    """Computes the uncentered second moment of every plane, `(N, 1, 1, C)`.

    Args:
        x: Tensor `(N, H, W, C)`, zero at excluded positions.
        axes: Tuple of the axes of a plane.
        count: The number of values that count, a float or `(N, 1, 1, 1)`.
    """

    def forward(x):
        return plane_sums(lambda x: [x * x], [x], axes)[0]

    def backward(upstream, x):
        (upstream,) = materialize([2.0 * upstream])
        return (x * upstream,)

    return with_custom_gradient(forward, backward)(x) / count


def shifted_sums(x, shift, axes, valid=None):
    """Sums `x - shift` and its square over every plane.

    Args:
        x: Tensor `(N, H, W, C)`.
        shift: Tensor `(N, 1, 1, C)`, a constant to the gradient.
        axes: Tuple of the axes of a plane.
        valid: Tensor that broadcasts against `x`, 0 at excluded positions,
            or None.

    Returns:
        Two tensors `(N, 1, 1, C)`.
    """

    def deviation(x, shift, valid=None):
        if valid is None:
            return x - shift
        return ops.where(valid > 0, x - shift, 0.0)

    def forward(x, shift, *valid):
        def terms(x, *valid):
            d = deviation(x, shift, *valid)
            return [d, d * d]

        return ops.stack(plane_sums(terms, [x, *valid], axes))

    def backward(upstream, x, shift, *valid):
        first, second = materialize([upstream[0], upstream[1]])
        gradient = first + 2.0 * second * (x - shift)
        if valid:
            gradient = ops.where(valid[0] > 0, gradient, 0.0)
        constants = [shift, *valid]
        return gradient, *(ops.zeros_like(c) for c in constants)

    tensors = [x, shift] if valid is None else [x, shift, valid]
    sums = with_custom_gradient(forward, backward)(*tensors)
    return sums[0], sums[1]


def affine(x, axes, center=None, factor=None, offset=None, tau=None):
    """Computes `max((x - center) * factor + offset, tau)`.

    The subtraction comes first: `x * factor + (offset - center * factor)`
    would lose digits if the mean is large compared with the spread.

    Args:
        x: Tensor `(N, H, W, C)`.
        axes: Tuple of the axes of a plane.
        center: Tensor, one value per plane or channel, or None to omit it. Only
            together with `factor`.
        factor: As `center`.
        offset: As `center`.
        tau: Tensor, one value per channel, or None. If the result equals `tau`,
            the gradient flows to the result; NaN stays NaN.

    Returns:
        Tensor `(N, H, W, C)`.
    """
    if center is not None:
        # A constant and what `offset` takes over from it: the same function of
        # `center`, to every derivative, with one sum less to make.
        moved = (ops.stop_gradient(center) - center) * factor
        offset = moved if offset is None else offset + moved
        center = ops.stop_gradient(center)
    values = {"center": center, "factor": factor, "offset": offset, "tau": tau}
    names = [name for name, value in values.items() if value is not None]

    def forward(x, *tensors):
        given = dict(zip(names, tensors, strict=True))
        y = _transform(x, given)
        return y if tau is None else _at_least(y, given["tau"])

    def backward(upstream, x, *tensors):
        given = dict(zip(names, tensors, strict=True))

        def through(x, upstream):
            if tau is None:
                return upstream
            return ops.where(_is_below(x, given), 0.0, upstream)

        def terms(x, upstream):
            passed = through(x, upstream)
            values = [passed]
            if factor is not None:
                values.append(passed * _deviation(x, given))
            if tau is not None:
                values.append(upstream)
            return values

        sums = plane_sums(terms, [x, upstream], axes)
        to = {"offset": sums[0]}
        if factor is not None:
            to["factor"] = sums[1]
        if tau is not None:
            # Exactly 0 where nothing lies below: both sums add alike.
            to["tau"] = sums[-1] - sums[0]
        to_x = through(x, upstream)
        if factor is not None:
            to_x = to_x * given["factor"]
        return to_x, *(
            ops.zeros_like(given[name])
            if name == "center"
            else _sum_to(to[name], given[name])
            for name in names
        )

    tensors = materialize([values[name] for name in names])
    return with_custom_gradient(forward, backward)(x, *tensors)


def _deviation(x, given):
    return x - given["center"] if "center" in given else x


def _scaled(x, given):
    x = _deviation(x, given)
    return x * given["factor"] if "factor" in given else x


def _transform(x, given):
    x = _scaled(x, given)
    return x + given["offset"] if "offset" in given else x


def _at_least(y, tau):
    # On torch `ops.maximum` makes float32 of float64; it is one pass over
    # memory where TensorFlow does not compile, `functional.threshold` is two.
    if keras.backend.standardize_dtype(y.dtype) == "float64":
        return functional.threshold(y, tau)
    return ops.maximum(y, tau)


def _is_below(x, given):
    tau = given["tau"]
    if "offset" in given:
        tau = tau - given["offset"]
    return _scaled(x, given) < tau


def _sum_to(planes, like):
    """Sums values of planes over every axis along which `like` has length 1."""
    axes = tuple(
        axis
        for axis, size in enumerate(like.shape)
        if size == 1 and planes.shape[axis] != 1
    )
    return ops.sum(planes, axis=axes, keepdims=True) if axes else planes


def with_custom_gradient(forward, backward):
    """Creates a function of tensors with a custom gradient.

    Args:
        forward: `f(*tensors)` gives one tensor.
        backward: `f(upstream, *tensors)` gives a tuple of gradients, one a
            tensor, by differentiable operations.
    """

    @ops.custom_gradient
    def function(*tensors):
        def gradient(*arguments, upstream=None):
            if upstream is None:
                return backward(arguments[0], *tensors)
            # torch names the gradient and passes what it saved.
            return backward(upstream, *arguments)

        return forward(*tensors), gradient

    return function
