"""Export of one graph: exports it, stores it, compares it with PyTorch. Imported by scripts/export.py, not run by itself."""

import json
import os
import shutil
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")

try:
    import numpy as np
    import onnx
    import torch
    from onnx import TensorProto, helper, numpy_helper
except ImportError as e:
    sys.exit(f"{e}. Install what the scripts need: python -m pip install -r scripts/requirements.txt")


def fail(message):
    sys.exit("export.py: " + message)


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2, sort_keys=True)
        f.write("\n")


def config_of(folder):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        return json.load(f)


SIZE = {0: "batch", 2: "height", 3: "width"}
LATENT = {0: "batch", 2: "latent_height", 3: "latent_width"}
AXES = {
    "sample": SIZE,
    "timestep": {0: "batch"},
    "encoder_hidden_states": {0: "batch", 1: "sequence"},
    "text_embeds": {0: "batch"},
    "time_ids": {0: "batch"},
    "timestep_cond": {0: "batch"},
    "class_labels": {0: "batch"},
    "out_sample": SIZE,
}


class Part:
    """A graph to export: the module, its inputs by (batch, scale), its axes, and its config.json: a dict, or the folder
    whose file is copied."""

    def __init__(self, name, module, inputs, outputs, make, axes, config):
        self.name, self.module, self.inputs, self.outputs = name, module.eval().requires_grad_(False), inputs, outputs
        self.make, self.axes, self.config = make, axes, config


def worth_halving(array):
    """Returns true if an array is neither small nor a vector. Vectors hardly take room, and one of them is the frequencies that
    timesteps of up to 1000 are multiplied by, for which float16 is too coarse."""
    return array.size >= 64 and array.size > max(array.shape)


def half_storage(model):
    """Float32 weights as float16, each behind a Cast; the values may be those of
    initializers or of Constant nodes.  Returns how many stayed float32."""
    graph, casts, kept = model.graph, [], 0
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        array = numpy_helper.to_array(tensor)
        if not worth_halving(array):
            continue
        if not np.isfinite(array).all() or np.abs(array).max() > 65000:
            kept += 1
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), name + "_half"))
        casts.append(helper.make_node("Cast", [name + "_half"], [name], name=f"half/{name}", to=TensorProto.FLOAT))
    constants = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            array = numpy_helper.to_array(tensor)
            if array.dtype == np.float32 and worth_halving(array) and np.abs(array).max() <= 65000:
                name = node.output[0]
                node.output[0] = name + "_half"
                tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16)))
                constants.append((node, helper.make_node("Cast", [name + "_half"], [name], name=f"half/{name}", to=TensorProto.FLOAT)))
    nodes = list(casts)
    after = {id(node): cast for node, cast in constants}
    for node in graph.node:
        nodes.append(node)
        if id(node) in after:
            nodes.append(after[id(node)])
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return kept


def merge_equal(model):
    """Keeps one of all equal constants and one of all nodes that compute the same from the same: a traced graph asks for
    the shape of a tensor once for each use of it. Nodes must not be random, and are not in what is exported here."""
    graph = model.graph
    if any(a.HasField("g") or a.graphs for node in graph.node for a in node.attribute):
        return
    outputs = {o.name for o in graph.output}
    known, instead, nodes, lifted = {}, {}, [], []
    for tensor in graph.initializer:
        known.setdefault((tensor.data_type, tuple(tensor.dims), tensor.raw_data or tensor.SerializeToString()), tensor.name)
    for node in graph.node:
        node.input[:] = [instead.get(n, n) for n in node.input]
        if node.op_type == "Constant" and node.attribute[0].name == "value" and node.output[0] not in outputs:
            tensor = node.attribute[0].t
            key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data or tensor.SerializeToString())
            tensor.name = node.output[0]
            found = known.setdefault(key, tensor.name)
            if found == tensor.name:
                lifted.append(tensor)
            instead[node.output[0]] = found
            continue
        attributes = tuple(sorted(a.SerializeToString() for a in node.attribute))
        key = (node.op_type, node.domain, tuple(node.input), attributes, len(node.output))
        found = known.setdefault(key, node)
        if found is not node and not outputs & set(node.output):
            instead |= dict(zip(node.output, found.output))
        else:
            nodes.append(node)
    graph.initializer.extend(lifted)
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def fix_outputs(model, part):
    """Writes the lengths of the outputs' axes that are not free where the exporter did not know them."""
    for at, output in enumerate(model.graph.output):
        axes = enumerate(output.type.tensor_type.shape.dim)
        unknown = [(i, d) for i, d in axes if d.HasField("dim_param") and i not in part.axes.get(output.name, {})]
        if unknown:
            with torch.no_grad():
                made = part.module(*part.make(2, 1))
            made = made[at] if isinstance(made, tuple) else made
            for i, d in unknown:
                d.dim_value = made.shape[i]


def weight_bytes(model):
    total = 0
    for t in model.graph.initializer:
        total += len(t.raw_data) if t.raw_data else numpy_helper.to_array(t).nbytes
    return total


def write(part, out, args):
    folder = os.path.join(out, part.name)
    os.makedirs(folder, exist_ok=True)
    target = os.path.join(folder, "model.onnx")
    for old in ("model.onnx", "model.onnx_data"):
        if os.path.exists(os.path.join(folder, old)):
            os.remove(os.path.join(folder, old))
    # a folder of its own: weights over 2 GB come as a file each
    with tempfile.TemporaryDirectory(dir=out) as temp:
        raw = os.path.join(temp, "model.onnx")
        with torch.no_grad():
            torch.onnx.export(
                part.module,
                part.make(2, 1),
                raw,
                input_names=part.inputs,
                output_names=part.outputs,
                dynamic_axes=part.axes,
                opset_version=args.opset,
                do_constant_folding=True,
                dynamo=False,
            )
        model = onnx.load(raw)
    found = [i.name for i in model.graph.input]
    if found != part.inputs:
        fail(f"{part.name}: the exported graph takes {found}, not {part.inputs}")
    fix_outputs(model, part)
    if args.dtype == "half":
        kept = half_storage(model)
        if kept:
            print(f"  {part.name}: {kept} weights do not fit float16 and stay float32")
    merge_equal(model)
    model.producer_name = "ldm-ort export.py"
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        if node.op_type in ("Constant", "Cast", "Identity"):
            node.name = ""  # thousands of them, and nothing refers to a node's name
    size = weight_bytes(model)
    if size > args.external_data_mb * 1e6:
        onnx.save_model(model, target, save_as_external_data=True, all_tensors_to_one_file=True, location="model.onnx_data", size_threshold=1024)
    else:
        onnx.save_model(model, target)
    onnx.checker.check_model(target)
    if isinstance(part.config, dict):
        write_json(os.path.join(folder, "config.json"), part.config)
    else:
        shutil.copyfile(os.path.join(part.config, "config.json"), os.path.join(folder, "config.json"))
    return target, size


def check(part, path, args):
    """The largest difference from PyTorch over two sizes and two batches, in units of
    the output's own largest value."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    if names != part.outputs:
        fail(f"{part.name}: the exported graph gives {names}, not {part.outputs}")
    worst = 0.0
    torch.manual_seed(0)
    for batch in (1, 3):
        for scale in (1, 2):
            inputs = part.make(batch, scale)
            with torch.no_grad():
                wanted = part.module(*inputs)
            wanted = wanted if isinstance(wanted, tuple) else (wanted,)
            got = session.run(None, {n: v.numpy() for n, v in zip(part.inputs, inputs)})
            for name, w, g in zip(names, wanted, got):
                if tuple(w.shape) != g.shape:
                    fail(f"{part.name}: {name} is {g.shape} in ONNX Runtime and {tuple(w.shape)} in PyTorch")
                if not np.isfinite(g).all():
                    fail(f"{part.name}: {name} is not finite in ONNX Runtime")
                worst = max(worst, float(np.abs(w.numpy() - g).max() / max(1.0, w.abs().max().item())))
    limit = args.tolerance if args.tolerance is not None else (2e-2 if args.dtype == "half" else 1e-3)
    if worst > limit:
        fail(f"{part.name}: differs from PyTorch by {worst:.2e}, more than {limit:.0e}")
    return worst


def export(parts, args):
    """Writes every part to args.out and says how it went; `parts` may be a generator, to hold one at a time.
    Returns their names."""
    os.makedirs(args.out, exist_ok=True)
    names = []
    for part in parts:
        path, size = write(part, args.out, args)
        line = f"{part.name}: {size / 1e6:.2f} MB of weights"
        if not args.no_check:
            line += f", largest difference from PyTorch {check(part, path, args):.1e}"
        print(line, flush=True)
        names.append(part.name)
    return names


def shorten(proto, modules=False):
    """Gives every inner tensor a short name and drops what only a reader needs: half of a tiny graph is names.

    With `modules` it keeps what LoRAs find their weights by: the name under which a weight is stored and, where the
    exporter stored it transposed under a name that tells nothing, the path of the MatMul that reads it."""
    graph = proto.graph
    kept = {v.name for v in (*graph.input, *graph.output)}
    stored = {i.name for i in graph.initializer}
    pathed = []
    if modules:
        kept |= {n.input[1] for n in graph.node if n.op_type in ("Conv", "Gemm") and n.input[1] in stored}
        pathed = [n for n in graph.node if n.op_type == "MatMul" and n.input[1] in stored]
    paths = [n.name for n in pathed]
    short = {}

    def name(old):
        if not old or old in kept:
            return old
        return short.setdefault(old, f"{len(short):x}")

    for initializer in graph.initializer:
        initializer.name = name(initializer.name)
    for node in graph.node:
        node.name = node.doc_string = ""
        node.input[:] = [name(n) for n in node.input]
        node.output[:] = [name(n) for n in node.output]
        assert not any(a.HasField("g") for a in node.attribute), "a subgraph would need its names changed as well"
    for node, path in zip(pathed, paths):
        node.name = path
    del graph.value_info[:]
    graph.name, graph.doc_string, proto.doc_string = "main", "", ""
    onnx.checker.check_model(proto)
    return proto
