import ast
import doctest
import importlib.util
import io
import pathlib
import sys

import keras
import numpy as np
import pytest

import keras_norm
from keras_norm import FRN
from keras_norm import RBN
from keras_norm import TLU
from keras_norm import analysis
from tests import reference
from tests.assertions import assert_allclose
from tests.assertions import assert_array_equal
from tests.assertions import to_numpy
from tests.layers.members import weights_of

SHAPE = (4, 5, 7, 3)
needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="no matplotlib"
)


def draw(shape=SHAPE, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(1.5, 2.0, shape).astype("float32")


def rbn(seed, channels=3, **kwargs):
    """A built layer whose weights all hold different values."""
    layer = RBN(**kwargs)
    shape = [None, 5, 7, channels]
    layer.build(shape if layer.axis == -1 else [None, channels, 5, 7])
    generator = np.random.default_rng(seed)
    for weight in layer.variables:
        weight.assign(generator.uniform(0.3, 1.5, weight.shape))
    return layer


def sequential(*layers, **kwargs):
    return keras.Sequential([keras.Input(SHAPE[1:]), *layers], **kwargs)


def output_of(layer, x):
    return reference.rbn(x, weights_of(layer), training=False)


def assert_records(record, layer, x):
    """The paper's formulas once more, channels last, in float64."""
    x, weights = np.asarray(x, np.float64), weights_of(layer)
    centered = x + weights["center_weight"] * x.mean((1, 2), keepdims=True)
    normalized = (centered - weights["moving_mean"]) / np.sqrt(
        weights["moving_variance"] + layer.epsilon
    )
    level = weights["scale_weight"] * normalized.mean((1, 2), keepdims=True)
    scaled = normalized / (1.0 + np.exp(-level - weights["scale_bias"]))
    expected = {
        "before_centering": x,
        "after_centering": centered,
        "std_before_scaling": normalized.std((0, 1, 2)),
        "std_after_scaling": scaled.std((0, 1, 2)),
    }
    assert list(record) == list(expected)
    for name, value in expected.items():
        assert type(record[name]) is np.ndarray
        assert_allclose(record[name], value, rtol=1e-5, atol=1e-5)


class Branches(keras.Model):
    """Subclassed: one layer called twice, layers of one name, no build."""

    def __init__(self):
        super().__init__()
        self.shared = rbn(1, name="shared")
        self.branches = {"a": [rbn(2, name="same")], "b": [rbn(3, name="same")]}

    def call(self, inputs):
        x = self.shared(inputs)
        x = self.branches["a"][0](x)
        x = self.branches["b"][0](x)
        return self.shared(inputs=x)


def test_records_match_the_formulas():
    layer = rbn(0, name="rbn")
    records = analysis.calibrations(sequential(layer), draw())
    assert list(records) == ["rbn"]
    assert_records(records["rbn"], layer, draw())


def test_channels_come_last_for_any_axis():
    layer = rbn(0, name="rbn", axis=1)
    x = draw((4, 3, 5, 7))
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    (record,) = analysis.calibrations(model, x).values()
    assert_records(record, layer, np.moveaxis(x, 1, -1))


def test_layers_of_nested_models_go_by_their_path():
    first, second, third = (rbn(i, name=f"rbn_{i}") for i in range(3))
    stage = sequential(second, name="stage1")
    inputs = keras.Input(SHAPE[1:])
    backbone = keras.Model(inputs, stage(first(inputs)), name="backbone")
    model = sequential(backbone, third)
    records = analysis.calibrations(model, draw())
    paths = ["backbone/rbn_0", "backbone/stage1/rbn_1", "rbn_2"]
    assert list(records) == paths == list(analysis.learned_values(model))
    x = draw()
    for path, layer in zip(paths, (first, second, third), strict=True):
        assert_records(records[path], layer, x)
        x = output_of(layer, x)


def test_a_subclassed_model_with_shared_layers_and_equal_names():
    model = Branches()
    records = analysis.calibrations(model, draw())
    calls = {
        "shared": model.shared,
        "same": model.branches["a"][0],
        "same (layer 2)": model.branches["b"][0],
        "shared (call 2)": model.shared,
    }
    assert list(records) == list(calls)
    x = draw()
    for path, layer in calls.items():
        assert_records(records[path], layer, x)
        x = output_of(layer, x)


def test_a_layer_in_two_places_goes_by_the_first():
    layer = rbn(0, name="rbn")
    stages = [sequential(layer, name=name) for name in ("first", "second")]
    model = sequential(*stages)
    assert list(analysis.learned_values(model)) == ["first/rbn"]
    records = analysis.calibrations(model, draw())
    assert list(records) == ["first/rbn", "first/rbn (call 2)"]
    second = records["first/rbn (call 2)"]
    assert_records(second, layer, output_of(layer, draw()))


def test_an_unbuilt_model_is_built():
    layer = RBN(name="rbn")
    records = analysis.calibrations(keras.Sequential([layer]), draw())
    assert list(records) == ["rbn"]
    assert_records(records["rbn"], layer, draw())


def test_an_uncalled_layer_raises_an_error_with_its_path():
    model = Branches()
    model.idle = rbn(4, name="idle")
    with pytest.raises(ValueError, match=r"called.* Received: .*\['idle'\]"):
        analysis.calibrations(model, draw())
    records = analysis.calibrations(model, draw(), include="shared")
    assert list(records) == ["shared", "shared (call 2)"]


def test_a_layer_inside_a_wrapper_is_found():
    layer = rbn(0, name="rbn")
    wrapper = keras.layers.TimeDistributed(layer, name="wrapper")
    model = keras.Sequential([keras.Input((2, *SHAPE[1:])), wrapper])
    x = draw((4, 2, 5, 7, 3))
    records = analysis.calibrations(model, x)
    assert list(records) == ["wrapper/rbn", "wrapper/rbn (call 2)"]
    assert_records(records["wrapper/rbn (call 2)"], layer, x[:, 1])


def test_moving_moments_do_not_move_and_outputs_stay():
    model = sequential(rbn(0), rbn(1))
    weights, output = model.get_weights(), to_numpy(model(draw()))
    analysis.calibrations(model, draw())
    for before, after in zip(weights, model.get_weights(), strict=True):
        assert_array_equal(after, before)
    assert_array_equal(model(draw()), output)


class Failing(keras.layers.Layer):
    fails = False

    def call(self, inputs):
        if self.fails:
            raise RuntimeError("fails on purpose")
        return inputs


def test_the_calls_are_put_back_even_after_an_error():
    plain, replaced, last = rbn(0), rbn(1), Failing()
    replaced.call = own = replaced.call
    model = sequential(plain, replaced, last)
    analysis.calibrations(model, draw())
    assert "call" not in vars(plain)
    assert vars(replaced)["call"] is own
    last.fails = True
    with pytest.raises(RuntimeError, match="on purpose"):
        analysis.calibrations(model, draw())
    assert "call" not in vars(plain)
    assert vars(replaced)["call"] is own


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        ("stage", ["stage/rbn", "stage/norm"]),
        (["norm"], ["stage/norm"]),
        (["stage/norm", "last"], ["stage/norm", "last"]),
        (lambda path: path.endswith("rbn"), ["stage/rbn"]),
    ],
)
def test_include(include, expected):
    stage = sequential(rbn(0, name="rbn"), rbn(1, name="norm"), name="stage")
    model = sequential(stage, rbn(2, name="last"))
    assert list(analysis.calibrations(model, draw(), include)) == expected
    assert list(analysis.learned_values(model, include)) == expected


@pytest.mark.parametrize("include", ["tage", ["rbn", "x"], [], lambda p: False])
def test_an_include_without_matches_raises_an_error(include):
    stage = sequential(rbn(0, name="rbn"), name="stage")
    model = sequential(stage)
    for function in (
        lambda: analysis.calibrations(model, draw(), include),
        lambda: analysis.learned_values(model, include),
    ):
        with pytest.raises(ValueError, match=r"\['stage/rbn'\], include="):
            function()


def test_invalid_models_raise_an_error():
    for wrong in (None, rbn(0), "model.keras"):
        with pytest.raises(ValueError, match="a Keras model. Received: "):
            analysis.calibrations(wrong, draw())
        with pytest.raises(ValueError, match="a Keras model. Received: "):
            analysis.learned_values(wrong)
    model = sequential(keras.layers.BatchNormalization(name="bn"))
    with pytest.raises(ValueError, match="keras_norm .* Received: .*'bn'"):
        analysis.learned_values(model)
    model = sequential(FRN(name="frn"))
    with pytest.raises(ValueError, match="RBN .* Received: .*'frn'"):
        analysis.calibrations(model, draw())


def test_inputs_of_a_wrong_shape_are_refused_by_keras():
    with pytest.raises(ValueError, match="value 3, .* shape .4, 5, 7, 2"):
        analysis.calibrations(sequential(rbn(0)), draw((4, 5, 7, 2)))


def test_a_masked_layer_is_named():
    masking = keras.layers.Masking()
    model = keras.Sequential([keras.Input((5, 3)), masking, RBN(name="rbn")])
    with pytest.raises(ValueError, match=r"mask.*Received.*\['rbn'\]"):
        analysis.calibrations(model, draw((4, 5, 3)))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="compiles none")
def test_a_layer_in_a_compiled_function_is_named():
    def compiled(function):
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            return tf.function(function)
        import jax

        return jax.jit(function)

    class Compiled(keras.Model):
        def __init__(self):
            super().__init__()
            self.rbn = rbn(0, name="rbn")

        def call(self, inputs):
            return compiled(lambda x: self.rbn(x))(inputs)

    with pytest.raises(ValueError, match=r"eagerly.*Received.*\['rbn'\]"):
        analysis.calibrations(Compiled(), draw())


def is_learned(weight):
    return weight.trainable or weight.name in ("mean_mix", "variance_mix")


def test_learned_values_are_those_assigned():
    layers = {
        "frn": FRN(learned_epsilon="channel", epsilon=0.5, activation="tlu"),
        "scalar": FRN(learned_epsilon=True),
        "tlu": TLU(affine=True),
        "rbn": RBN(renorm=True),
        "eval_norm": keras_norm.EvalNorm(),
        "bn": keras_norm.BatchNormalization(scale=False),
    }
    model = sequential(*layers.values())
    expected = {}
    for i, layer in enumerate(layers.values()):
        weights = [w for w in layer.weights if is_learned(w)]
        for j, weight in enumerate(weights):
            weight.assign(draw(weight.shape, seed=10 * i + j) - 2.0)
        expected[layer.name] = {w.name: to_numpy(w).copy() for w in weights}
    values = analysis.learned_values(model)
    for weight in model.trainable_weights:
        weight.assign(weight * 0.0)
    assert list(values) == list(expected)
    for path, arrays in expected.items():
        found = dict(values[path])
        if path != layers["tlu"].name:
            learned = np.abs(arrays.get("learned_epsilon", 0.0))
            epsilon = model.get_layer(path).epsilon + learned
            assert_allclose(found.pop("epsilon"), epsilon)
        assert sorted(found) == sorted(arrays)
        for name, value in arrays.items():
            assert_array_equal(found[name], value)
    assert (values[layers["frn"].name]["epsilon"] > 0.5).all()


def test_half_precision_values_come_in_float32():
    model = sequential(RBN(name="rbn", dtype="bfloat16"))
    gamma = analysis.learned_values(model)["rbn"]["gamma"]
    assert gamma.dtype == np.float32
    record = analysis.calibrations(model, draw())["rbn"]
    assert record["after_centering"].dtype == np.float32


def saved(figure):
    """The visible panels, after drawing, which warns of bad layouts."""
    figure.savefig(io.BytesIO(), dpi=30)
    return [axes for axes in figure.axes if axes.get_visible()]


@needs_matplotlib
def test_the_figure_of_learned_values():
    model = sequential(FRN(learned_epsilon=True, name="frn"), TLU(name="tlu"))
    values = analysis.learned_values(model)
    panels = saved(analysis.plot_learned_values(values))
    drawn = [(n, v) for arrays in values.values() for n, v in arrays.items()]
    for panel, (name, value) in zip(panels, drawn, strict=True):
        assert panel.get_title() == name
        assert_array_equal(panel.lines[0].get_ydata(), value.ravel())
        kind = "channel" if value.ndim else "all channels"
        assert (panel.get_xlabel(), panel.get_ylabel()) == (kind, "value")
    rows = [panel.get_title("left").strip() for panel in panels]
    assert [path for path in rows if path] == ["frn", "tlu"]


@needs_matplotlib
def test_the_figure_of_scaling():
    model = sequential(rbn(0, name="a"), rbn(1, name="b"))
    records = analysis.calibrations(model, draw())
    panels = saved(analysis.plot_scaling(records))
    for panel, path in zip(panels, records, strict=True):
        before, after = panel.lines
        order = np.argsort(records[path]["std_before_scaling"])
        for line, when in ((before, "before"), (after, "after")):
            std = records[path][f"std_{when}_scaling"][order]
            assert_array_equal(line.get_ydata(), std)
            assert line.get_label() == when
        assert (np.diff(before.get_ydata()) > 0).all()
        assert panel.get_title() == path
        assert panel.get_ylabel() == "standard deviation"
        assert "sorted" in panel.get_xlabel()
        assert len(panel.get_legend().get_texts()) == 2


@needs_matplotlib
@pytest.mark.parametrize("positions", [(), (5,), (5, 7), (2, 5, 7)])
def test_the_figure_of_centering(positions):
    layer = RBN(name="rbn", center_weight_initializer="ones")
    model = keras.Sequential([keras.Input((*positions, 3)), layer])
    records = analysis.calibrations(model, draw((4, *positions, 3)))
    figure = analysis.plot_centering(records, "rbn", sample=2)
    *panels, shared, signed = saved(figure)
    before = records["rbn"]["before_centering"][2]
    after = records["rbn"]["after_centering"][2]
    rows = np.stack([before, after, after - before])
    planes = np.moveaxis(rows, -1, 1).reshape(9, -1)
    norms = [panel.images[0].norm for panel in panels]
    for i, (panel, plane) in enumerate(zip(panels, planes, strict=True)):
        assert_array_equal(panel.images[0].get_array().ravel(), plane)
        assert panel.get_title() == f"channel {i % 3}"
        assert norms[i] is norms[0 if i < 6 else 6]
    assert (norms[0].vmin, norms[0].vmax) == (rows[:2].min(), rows[:2].max())
    assert norms[6].vmax == -norms[6].vmin == np.abs(rows[2]).max()
    labels = [panel.get_ylabel() for panel in panels[::3]]
    assert labels == ["before", "after", "after - before"]
    bars = [bar.get_ylabel() for bar in (shared, signed)]
    assert bars == ["feature", "difference"]
    assert figure.get_suptitle().startswith("Sample 2 ")
    assert figure.get_suptitle().endswith("\nrbn")


@needs_matplotlib
def test_no_difference_is_the_same_color_in_every_panel():
    records = analysis.calibrations(sequential(RBN(name="rbn")), draw())
    panels = saved(analysis.plot_centering(records, "rbn"))[6:9]
    colors = [panel.images[0].to_rgba(0.0) for panel in panels]
    assert len(set(colors)) == 1
    assert min(colors[0]) > 0.9


@needs_matplotlib
def test_a_figure_names_the_number_of_omitted_items():
    model = sequential(*[RBN(name=f"rbn_{i}") for i in range(5)])
    records = analysis.calibrations(model, draw())
    for figure, titles in (
        (analysis.plot_scaling(records, 3), "center"),
        (
            analysis.plot_learned_values(analysis.learned_values(model), 3),
            "left",
        ),
    ):
        note = "3 of 5 layers, evenly spaced; 2 left out"
        assert figure.get_suptitle().endswith(note)
        shown = [panel.get_title(titles).strip() for panel in saved(figure)]
        assert [t for t in shown if t] == ["rbn_0", "rbn_2", "rbn_4"]
    figure = analysis.plot_centering(records, "rbn_1", max_channels=2)
    assert figure.get_suptitle().endswith(
        "2 of 3 channels, evenly spaced; 1 left out"
    )
    assert [p.get_title() for p in figure.axes[:2]] == [
        "channel 0",
        "channel 2",
    ]


@needs_matplotlib
def test_nothing_to_draw_is_refused():
    for plot in (analysis.plot_scaling, analysis.plot_learned_values):
        with pytest.raises(ValueError, match="No layers to draw. Received: "):
            plot({})


def test_a_plot_without_matplotlib_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    records = analysis.calibrations(sequential(RBN(name="rbn")), draw())
    values = analysis.learned_values(sequential(RBN()))
    for plot in (
        lambda: analysis.plot_scaling(records),
        lambda: analysis.plot_centering(records, "rbn"),
        lambda: analysis.plot_learned_values(values),
    ):
        with pytest.raises(ImportError, match="pip install matplotlib"):
            plot()


def test_it_imports_no_backend_and_no_matplotlib():
    tree = ast.parse(pathlib.Path(analysis.__file__).read_text())
    imports = [n for n in tree.body if isinstance(n, ast.Import)]
    roots = {alias.name.split(".")[0] for n in imports for alias in n.names}
    froms = [n.module for n in tree.body if isinstance(n, ast.ImportFrom)]
    roots |= {module.split(".")[0] for module in froms}
    assert roots == {"contextlib", "inspect", "itertools", "keras"} | {
        "keras_norm",
        "numpy",
    }


@pytest.mark.parametrize(
    "item", [analysis.learned_values, analysis.calibrations]
)
def test_docstring_examples_run(item):
    (test,) = doctest.DocTestFinder(recurse=False).find(item, item.__name__)
    runner = doctest.DocTestRunner()
    runner.run(test)
    assert runner.failures == 0
    assert runner.tries > 0
