"""Writes malformed and hostile model files.

Each is written by a function of a path. `EDITS` change the config of a small
model, `ARCHIVES` its zip archive, and `HDF5` a legacy file. `OTHERS` are not
model files.
"""

import contextlib
import copy
import io
import json
import os
import pathlib
import re
import resource
import stat
import struct
import sys
import tempfile
import threading
import time
import warnings
import zipfile
import zlib

import h5py
import keras
import numpy as np
from keras import layers

import keras_norm_cli

IMAGE = (8, 8, 3)
CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
HUGE = 2**25
LAYERS = "config", "layers"


def model():
    inputs = keras.Input(IMAGE, name="image")
    outputs = layers.Conv2D(8, 3, name="conv")(inputs)
    outputs = layers.BatchNormalization(name="bn")(outputs)
    outputs = layers.ReLU(name="relu")(outputs)
    return keras.Model(inputs, outputs, name="small")


def write_members(path, parts):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def read_members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


class Files:
    """Files of a small model, and edited copies."""

    def __init__(self, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            keras.saving.save_model(model(), folder / "whole.keras")
            keras.saving.save_model(model(), folder / "whole.h5")
        self.parts = read_members(folder / "whole.keras")
        self.hdf5 = (folder / "whole.h5").read_bytes()
        self.config = json.loads(self.parts[CONFIG])

    def write(self, path, **changes):
        """Writes a `.keras` file; keys are members without their dots."""
        names = {"config": CONFIG, "metadata": METADATA, "weights": WEIGHTS}
        changes = {names[key]: value for key, value in changes.items()}
        parts = {**self.parts, **changes}
        write_members(path, {k: v for k, v in parts.items() if v is not None})

    def edit(self, path, edit):
        """Writes a `.keras` file with a changed config."""
        config = copy.deepcopy(self.config)
        edited = edit(config)
        self.write(
            path, config=json.dumps(config if edited is None else edited)
        )

    def edit_hdf5(self, path, edit):
        """Writes a legacy file that a function changes in place."""
        path.write_bytes(self.hdf5)
        with h5py.File(path, "r+") as file:
            edit(file)


def at(config, *keys):
    for key in keys:
        config = config[key]
    return config


def put(*keys, value):
    """Returns an edit that sets a value in the config."""

    def edit(config):
        at(config, *keys[:-1])[keys[-1]] = value

    return edit


def without(*keys):
    def edit(config):
        del at(config, *keys[:-1])[keys[-1]]

    return edit


def insert(layer):
    """Returns an edit that adds a layer behind the input."""

    def edit(config):
        at(config, *LAYERS).insert(1, layer)

    return edit


def tensor(name, index=0):
    return {
        "class_name": "__keras_tensor__",
        "config": {
            "shape": [None, *IMAGE],
            "dtype": "float32",
            "keras_history": [name, index, 0],
        },
    }


def node(*args, **kwargs):
    return {"args": list(args), "kwargs": kwargs}


def layer(class_name, module="keras.layers", config=None, **keys):
    saved = {
        "module": module,
        "class_name": class_name,
        "config": {} if config is None else config,
        "registered_name": None,
        "name": "extra",
        "inbound_nodes": [node(tensor("image"))],
    }
    return {**saved, **keys}


def function(module, name):
    """Returns the config that Keras writes for a function."""
    return {
        "module": module,
        "class_name": "function",
        "config": name,
        "registered_name": name,
    }


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def loop(config):
    conv, relu = at(config, *LAYERS)[1], at(config, *LAYERS)[3]
    conv["inbound_nodes"] = [node(tensor("relu"))]
    relu["inbound_nodes"] = [node(tensor("conv"))]


CONV = (*LAYERS, 1)
BN = (*LAYERS, 2)
EDITS = {
    "config_list": lambda c: [],
    "config_number": lambda c: 3,
    "config_text": lambda c: "text",
    "config_empty": lambda c: {},
    "config_true": lambda c: True,
    "config_plain": lambda c: {"a": 1},
    "class_none": put("class_name", value=None),
    "class_number": put("class_name", value=3),
    "class_list": put("class_name", value=["Functional"]),
    "class_unknown": put("class_name", value="Functionless"),
    "module_number": put("module", value=3),
    "module_dict": put("module", value={"a": 1}),
    "registered_list": put(*BN, "registered_name", value=["x"]),
    "inner_none": put("config", value=None),
    "inner_list": put("config", value=[]),
    "inner_text": put("config", value="x"),
    "no_layers": without(*LAYERS),
    "layers_none": put(*LAYERS, value=None),
    "layers_text": put(*LAYERS, value="conv"),
    "layers_numbers": put(*LAYERS, value=[1, 2]),
    "layers_empty": put(*LAYERS, value=[]),
    "no_outputs": without("config", "output_layers"),
    "outputs_none": put("config", "output_layers", value=None),
    "outputs_unknown": put("config", "output_layers", value=[["x", 0, 0]]),
    "outputs_index": put("config", "output_layers", value=[["relu", 9, 0]]),
    "inputs_unknown": put("config", "input_layers", value=[["x", 0, 0]]),
    "layer_no_name": without(*CONV, "name"),
    "layer_no_class": without(*CONV, "class_name"),
    "layer_no_config": without(*CONV, "config"),
    "layer_no_nodes": without(*CONV, "inbound_nodes"),
    "layer_none": put(*CONV, value=None),
    "nodes_none": put(*CONV, "inbound_nodes", value=None),
    "nodes_number": put(*CONV, "inbound_nodes", value=[3]),
    "node_no_args": put(*CONV, "inbound_nodes", value=[{"kwargs": {}}]),
    "node_no_tensor": put(*CONV, "inbound_nodes", value=[node(3)]),
    "node_loop": loop,
    "node_itself": put(*CONV, "inbound_nodes", value=[node(tensor("conv"))]),
    "node_unknown": put(*CONV, "inbound_nodes", value=[node(tensor("x"))]),
    "node_index": put(*CONV, "inbound_nodes", value=[node(tensor("image", 7))]),
    "same_name": put(*BN, "name", value="conv"),
    "filters_negative": put(*CONV, "config", "filters", value=-3),
    "filters_zero": put(*CONV, "config", "filters", value=0),
    "filters_text": put(*CONV, "config", "filters", value="many"),
    "filters_nan": put(*CONV, "config", "filters", value=float("nan")),
    "filters_long": put(*CONV, "config", "filters", value=10**40),
    "filters_huge": put(*CONV, "config", "filters", value=HUGE),
    "kernel_huge": put(*CONV, "config", "kernel_size", value=[HUGE, HUGE]),
    "kernel_list": put(*CONV, "config", "kernel_size", value=[]),
    "strides_zero": put(*CONV, "config", "strides", value=[0, 0]),
    "padding_unknown": put(*CONV, "config", "padding", value="most"),
    "dtype_unknown": put(*CONV, "config", "dtype", value="float31"),
    "activation_unknown": put(*CONV, "config", "activation", value="eval"),
    "argument_unknown": put(*CONV, "config", "colour", value="red"),
    "axis_far": put(*BN, "config", "axis", value=9),
    "axis_text": put(*BN, "config", "axis", value="last"),
    "shape_negative": put(
        *LAYERS, 0, "config", "batch_shape", value=[None, -8, 8, 3]
    ),
    "shape_nan": put(
        *LAYERS, 0, "config", "batch_shape", value=[None, float("nan"), 8, 3]
    ),
    "shape_text": put(*LAYERS, 0, "config", "batch_shape", value="big"),
    "shape_number": put(*LAYERS, 0, "config", "batch_shape", value=3),
    "nested_deep": put("extra", value=nested(600)),
    "array_dtype": insert(
        layer(
            "Add",
            "keras.src.ops.numpy",
            inbound_nodes=[
                node(
                    tensor("image"),
                    {
                        "class_name": "__numpy__",
                        "config": {"value": ["a"], "dtype": "S1500000000"},
                    },
                )
            ],
        )
    ),
    "constants_only": insert(
        layer(
            "Arange",
            "keras.src.ops.numpy",
            registered_name="Arange",
            inbound_nodes=[node(0, 10**10)],
        )
    ),
    "dense_huge": insert(layer("Dense", config={"units": HUGE * 100})),
    "embedding_huge": insert(
        layer("Embedding", config={"input_dim": HUGE, "output_dim": HUGE})
    ),
    "oov_huge": insert(
        layer("StringLookup", config={"num_oov_indices": 10**10})
    ),
    "normalization_huge": put(
        *LAYERS,
        value=[
            layer(
                "InputLayer",
                config={"batch_shape": [None, 2**31], "name": "image"},
                name="image",
                inbound_nodes=[],
            ),
            layer(
                "Normalization",
                config={"mean": 0.0, "variance": 1.0, "name": "relu"},
                name="relu",
            ),
        ],
    ),
    "layers_many": put(
        *LAYERS,
        value=[{"module": "keras.layers", "class_name": "ReLU", "config": {}}]
        * 30_000,
    ),
}


def cut(size):
    return lambda files, path: path.write_bytes(zipped(files)[:size])


def zipped(files):
    buffer = io.BytesIO()
    write_members(buffer, files.parts)
    return buffer.getvalue()


def write_raw(text):
    return lambda files, path: files.write(path, config=text)


def write_metadata(text):
    return lambda files, path: files.write(path, metadata=text)


def write_member(name, data=b"x", mode=None):
    def write(files, path):
        files.write(path)
        info = zipfile.ZipInfo(name)
        if mode:
            info.external_attr = mode << 16
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(info, data)

    return write


def write_many(files, path):
    files.write(path)
    with zipfile.ZipFile(path, "a") as archive:
        for i in range(10_001):
            archive.writestr(f"assets/{i}", b"")


def patch_directory(files, path, member, offset, form, value):
    """Changes a field of a member's entry in the central directory."""
    data = bytearray(zipped(files))
    entry = data.rindex(member.encode()) - 46
    assert data[entry : entry + 4] == b"PK\x01\x02"
    struct.pack_into(form, data, entry + offset, value)
    path.write_bytes(data)


def patched(member, offset, form, value):
    return lambda files, path: patch_directory(
        files, path, member, offset, form, value
    )


def write_deflated(path, parts, member, size):
    """Writes an archive with a member of zeros, compressed in chunks."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            if name != member:
                archive.writestr(name, data)
        with archive.open(member, "w", force_zip64=True) as target:
            for _ in range(size // 2**20):
                target.write(bytes(2**20))


def write_bomb(member, size, version=None):
    def write(files, path):
        parts = dict(files.parts)
        if version:
            parts[METADATA] = json.dumps({"keras_version": version})
        write_deflated(path, parts, member, size)

    return write


def flip(files, path):
    data = bytearray(zipped(files))
    data[data.index(b"\x89HDF") + 3000] ^= 255
    path.write_bytes(data)


def npz(files, path):
    buffer = io.BytesIO()
    np.savez(buffer, __root__=np.array({"a": 1}, dtype=object))
    parts = {CONFIG: files.parts[CONFIG], METADATA: files.parts[METADATA]}
    write_members(path, {**parts, "model.weights.npz": buffer.getvalue()})


ARCHIVES = {
    "cut_10": cut(10),
    "cut_half": cut(9000),
    "cut_end": cut(-30),
    "json_null": write_raw("null"),
    "json_list": write_raw("[]"),
    "json_three": write_raw("3"),
    "json_nan": write_raw("NaN"),
    "json_empty": write_raw(""),
    "json_open": write_raw('{"class_name": '),
    "json_deep": write_raw("[" * 100_000),
    "json_digits": write_raw('{"a": ' + "1" * 5000 + "}"),
    "json_bytes": write_raw(b"\xff\xfe\x00\x80{"),
    "json_many": write_raw('{"a": [' + "[]," * 1_100_000 + "[]]}"),
    "metadata_list": write_metadata("[]"),
    "metadata_null": write_metadata("null"),
    "metadata_number": write_metadata('{"keras_version": 3}'),
    "metadata_word": write_metadata('{"keras_version": "new"}'),
    "metadata_cut": write_metadata('{"keras_version"'),
    "no_config": lambda files, path: files.write(path, config=None),
    "no_weights": lambda files, path: files.write(path, weights=None),
    "weights_empty": lambda files, path: files.write(path, weights=b""),
    "weights_text": lambda files, path: files.write(path, weights=b"weights"),
    "weights_flipped": flip,
    "weights_npz": npz,
    "member_parent": write_member("../outside.txt"),
    "member_inside": write_member("assets/../../outside.txt"),
    "member_absolute": write_member("/tmp/outside.txt"),
    "member_windows": write_member("c:\\outside.txt"),
    "member_link": write_member("assets/link", b"/etc", stat.S_IFLNK | 0o777),
    "member_twice": write_member(CONFIG, b"{}"),
    "member_many": write_many,
    "encrypted": patched(WEIGHTS, 8, "<H", 1),
    "method_unknown": patched(CONFIG, 10, "<H", 77),
    "offset_far": patched(CONFIG, 42, "<I", 10**9),
    "size_forged": patched(CONFIG, 24, "<I", 2**32 - 2),
    "size_forged_metadata": patched(METADATA, 24, "<I", 2**32 - 2),
    "size_zip64": patched(CONFIG, 24, "<I", 2**32 - 1),
    "checksum": patched(WEIGHTS, 16, "<I", 12345),
    "bomb_config": write_bomb(CONFIG, 2**27),
    "bomb_weights": write_bomb(WEIGHTS, 2**27),
    "bomb_keras_2": write_bomb("assets/zeros", 2**27, "2.12.0"),
}


def attribute(key, value):
    def edit(file):
        file.attrs[key] = value

    return edit


def no_attribute(file):
    del file.attrs["model_config"]


def replace_kernel(make):
    """Returns an edit that replaces the stored kernel."""

    def edit(file):
        names = []
        file.visititems(
            lambda name, item: (
                names.append(name)
                if isinstance(item, h5py.Dataset) and item.ndim == 4
                else None
            )
        )
        (name,) = names
        del file[name]
        make(file, name)

    return edit


def virtual(file, name):
    layout = h5py.VirtualLayout((3, 3, 3, 8), "float32")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (3, 3, 3, 8))
    file.create_virtual_dataset(name, layout)


def bomb(file, name):
    file.create_dataset(
        name, (2**15, 2**15), "float32", chunks=(2**10, 2**10),
        compression="gzip", fillvalue=0.0,
    )  # fmt: skip


def config_of(edit):
    def change(file):
        config = json.loads(file.attrs["model_config"])
        edit(config)
        file.attrs["model_config"] = json.dumps(config)

    return change


def use_old_calls(config):
    """Writes the calls of a model as Keras 2 did."""
    for layer in config["config"]["layers"]:
        layer["inbound_nodes"] = [
            [[*node["args"][0]["config"]["keras_history"], {}]]
            for node in layer["inbound_nodes"]
        ]


HDF5 = {
    "h5_no_config": no_attribute,
    "h5_config_number": attribute("model_config", 3),
    "h5_config_array": attribute("model_config", np.zeros(5)),
    "h5_config_empty": attribute("model_config", h5py.Empty("S5")),
    "h5_config_list": attribute("model_config", "[]"),
    "h5_config_null": attribute("model_config", "null"),
    "h5_config_cut": attribute("model_config", '{"class_name"'),
    "h5_config_bytes": attribute("model_config", np.bytes_(b"\xff\xfe{")),
    "h5_version_number": attribute("keras_version", 3),
    "h5_version_array": attribute("keras_version", np.zeros(3)),
    "h5_weights_gone": lambda file: file.pop("model_weights"),
    "h5_external_link": replace_kernel(
        lambda file, name: file.__setitem__(
            name, h5py.ExternalLink("/tmp/other.h5", "x")
        )
    ),
    "h5_soft_link": replace_kernel(
        lambda file, name: file.__setitem__(name, h5py.SoftLink("/elsewhere"))
    ),
    "h5_virtual": replace_kernel(virtual),
    "h5_external": replace_kernel(
        lambda file, name: file.create_dataset(
            name, (3, 3, 3, 8), "float32", external=[("/etc/passwd", 0, 864)]
        )
    ),
    "h5_bomb": replace_kernel(bomb),
    "h5_shape": replace_kernel(
        lambda file, name: file.create_dataset(name, data=np.zeros(5))
    ),
    "h5_text": replace_kernel(
        lambda file, name: file.create_dataset(name, data="text")
    ),
    "h5_group": replace_kernel(lambda file, name: file.create_group(name)),
    "h5_missing": replace_kernel(lambda file, name: None),
    "h5_filters": config_of(put(*CONV, "config", "filters", value=HUGE)),
    "h5_old_filters": lambda file: (
        attribute("keras_version", "2.9.0")(file),
        config_of(put(*CONV, "config", "filters", value=HUGE))(file),
        config_of(use_old_calls)(file),
    ),
    "h5_old_nothing": lambda file: (
        attribute("keras_version", "2.9.0")(file),
        attribute("model_config", '{"class_name": "Sequential"}')(file),
    ),
    "h5_old_deep": lambda file: (
        attribute("keras_version", "2.9.0")(file),
        attribute(
            "model_config",
            '{"class_name": "Model", "config": ' + "[" * 900 + "]" * 900 + "}",
        )(file),
    ),
    "h5_lists": lambda file: (
        attribute("keras_version", "2.9.0")(file),
        attribute("model_config", '{"class_name": "Model", "config": []}')(
            file
        ),
    ),
}


def unreadable(path):
    path.write_bytes(b"PK\x03\x04")
    path.chmod(0)


OTHERS = {
    "empty": lambda path: path.touch(),
    "folder": lambda path: path.mkdir(),
    "fifo": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "itself": lambda path: path.symlink_to(path),
    "random": lambda path: path.write_bytes(np.random.bytes(5000)),
    "text": lambda path: path.write_text("a model"),
    "zip_start": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(500)),
    "zip_only_end": lambda path: path.write_bytes(
        b"PK\x03\x04PK\x05\x06" + bytes(18)
    ),
    "hdf5_start": lambda path: path.write_bytes(
        b"\x89HDF\r\n\x1a\n" + bytes(500)
    ),
    "deflate": lambda path: path.write_bytes(zlib.compress(bytes(10**6))),
    "unreadable": unreadable,
}


def writers(files):
    """Returns a dict from names to functions that write malformed files."""

    def bound(write, item):
        return lambda path: write(item, path)

    return {
        **{
            k: bound(lambda e, p: files.edit(p, e), v) for k, v in EDITS.items()
        },
        **{k: bound(lambda w, p: w(files, p), v) for k, v in ARCHIVES.items()},
        **{
            k: bound(lambda e, p: files.edit_hdf5(p, e), v)
            for k, v in HDF5.items()
        },
        **OTHERS,
    }


class Largest:
    """Measures the size of the largest file in a folder."""

    def __init__(self, folder):
        self.folder, self.size, self.ends = folder, 0, False

    def __enter__(self):
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ends = True
        self.thread.join()

    def _watch(self):
        while not self.ends:
            with contextlib.suppress(OSError):
                for path in self.folder.rglob("*"):
                    self.size = max(self.size, path.lstat().st_size)
            time.sleep(0.002)


def convert(path, *arguments):
    """Runs `keras-norm convert` on a file; returns its effects as a dict."""
    out = path.with_name("out.keras")
    before = set(os.listdir(path.parent))
    output, errors = io.StringIO(), io.StringIO()
    start = time.monotonic()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            code = keras_norm_cli.main(
                ["convert", str(path), str(out), "--to=frn", *arguments]
            )
        except BaseException as error:
            code = repr(error)[:200]
    return {
        "code": code,
        "output": output.getvalue(),
        "errors": errors.getvalue(),
        "written": sorted(set(os.listdir(path.parent)) - before),
        "seconds": time.monotonic() - start,
        "rss": peak_memory(),
    }


def peak_memory():
    """Returns peak memory in bytes; ru_maxrss would include the parent's."""
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (peak,) = re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())
    return int(peak) * 1024


def main(folder, names):
    """Converts every file in this process; prints JSON."""
    folder = pathlib.Path(folder)
    files = Files(folder)
    temporary = pathlib.Path(tempfile.gettempdir())
    kept = set(os.listdir(temporary))
    results = {}
    for name, write in writers(files).items():
        if names and name not in names:
            continue
        suffix = ".h5" if name in HDF5 else ".keras"
        place = folder / name
        place.mkdir()
        path = place / f"model{suffix}"
        write(path)
        with Largest(temporary) as largest:
            results[name] = convert(path)
        results[name]["temporary"] = largest.size
        results[name]["left"] = sorted(set(os.listdir(temporary)) - kept)
        if path.is_file() and path.stat().st_size > 2**20:
            path.unlink()
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
