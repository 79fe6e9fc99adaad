"""Checks what makes a gpu lane slow, or its decoder wrong, and what its server takes in silence."""

import ast
import re
from collections.abc import Iterable
from typing import Any

from slipway.contract.engine import INPUT
from slipway.contract.lane import FILE_NAME as LANE
from slipway.contract.lane import Lane
from slipway.lint.finding import Finding, Findings
from slipway.lint.heads import GROUP
from slipway.lint.literals import Literals, walked
from slipway.lint.models import AGAIN, ENSEMBLE, GPU, Model, ModelConfig, Repository, listed, tensor_bytes
from slipway.lint.plans import check_fallback
from slipway.lint.python_steps import parse

FANCY = ":fancy_upsampling=1"
HARDWARE_IS_ON = "the hardware JPEG decoder is on, which reports success for a damaged image"
DALI_DECODER = re.compile(r"\bfn\.(experimental\.)?(decoders\.image|image_decoder)(_crop|_random_crop|_slice)?$")
"""DALI has its decoder under several names, with one set of defaults."""
HARDWARE_KIND = "HW_GPU_ONLY"
MOST_PIXELS = "MAX_BATCH_PIXELS"
CODEC_DECODER = re.compile(r"\bnvimgcodec\.Decoder$")
POOL_UNIT = 64 << 20
"""The size of Triton's own pool in bytes. Whole pools leave room for memory between tensors, which the pool cannot
use."""


def pool_bytes(configs: Iterable[ModelConfig]) -> int:
    """CUDA memory in bytes for the tensors between the steps of `configs`, on each GPU.

    Every instance of a decoder makes a largest batch of pixels; for every instance of an engine one is computed, and
    the next waits.
    """
    needed = 0
    for config in configs:
        instances = sum(group.count for group in config.instance_group if group.kind == GPU)
        batches = instances * max(config.max_batch_size, 1)
        if any(tensor.name == INPUT for tensor in config.output):
            needed += batches * sum(map(tensor_bytes, config.output))
        if any(tensor.name == INPUT for tensor in config.input):
            needed += 2 * batches * sum(map(tensor_bytes, (*config.input, *config.output)))
    return max(1, -(-needed // POOL_UNIT)) * POOL_UNIT


def gpus_of(configs: Iterable[ModelConfig]) -> tuple[int, ...] | None:
    """The GPUs that the steps name; None if one of them runs on every GPU."""
    groups = [group for config in configs for group in config.instance_group if group.kind == GPU]
    if any(not group.gpus for group in groups):
        return None
    return tuple(sorted({gpu for group in groups for gpu in group.gpus}))


def _gpus(numbers: tuple[int, ...] | None) -> str:
    return "every GPU" if numbers is None else f"GPUs {list(numbers)}"


def check_gpu_lane(repository: Repository, lane: Lane) -> Findings:
    """Check a repository whose lane.json says that it is a gpu lane."""
    steps = [model for model in repository.models.values() if model.backend not in ("", ENSEMBLE) and model.versions]
    for model in steps:
        yield from _step(model)
        if model.config.optimization.HasField("cuda") and model.backend == "tensorrt":
            yield from _graphs(model)
        yield from _decoder(model)
        yield from _declared_pixels(model)
    yield from _warmups(steps)
    yield from _one_place(repository)
    yield from check_fallback(repository, lane)
    needed = pool_bytes(repository.models[name].config for name in _used(repository))
    if (lane.cuda_pool_bytes or 0) < needed:
        reason = f"{lane.cuda_pool_bytes}, and the steps have up to {needed:,} bytes between them on each GPU"
        yield Finding("", LANE, "cuda_pool_bytes", reason, AGAIN, "gpu-memory")
    if (lane.pinned_pool_bytes or 0) < (lane.cuda_pool_bytes or 0):
        reason = f"{lane.pinned_pool_bytes}, and it takes what the CUDA pool of {lane.cuda_pool_bytes} cannot"
        yield Finding("", LANE, "pinned_pool_bytes", reason, AGAIN, "gpu-memory")
    named = gpus_of(repository.models[name].config for name in _used(repository))
    if lane.gpus != named:
        reason = f"{_gpus(lane.gpus)}, and the steps run on {_gpus(named)}: only the GPUs here get a pool of that size"
        yield Finding("", LANE, "gpus", reason, AGAIN, "gpu-memory")


def _step(model: Model) -> Findings:
    config = model.config
    kinds = {group.kind for group in config.instance_group}
    if model.name.startswith(("post_", GROUP)) and GPU not in kinds:
        reason = "without a stream of its own it waits for the decoder and the engines, and they for it"
        yield model.finding("post-on-the-cpu", "instance_group[0].kind", reason, "write KIND_GPU")
    if model.name.startswith("preprocess_") and kinds != {GPU}:
        reason = "an instance that is on no GPU decodes on the CPU, in silence"
        yield model.finding("decoder-on-the-cpu", "instance_group[0].kind", reason, "write KIND_GPU")
    if model.parameter("FORCE_CPU_ONLY_INPUT_TENSORS") == "no":
        field, reason = "parameters['FORCE_CPU_ONLY_INPUT_TENSORS']", "the step reads its tensors on the CPU"
        yield model.finding("gpu-inputs", field, f"no, but {reason}", "remove it")
    batching = config.dynamic_batching
    if model.name.startswith("guard_") and (batching.max_queue_delay_microseconds or batching.preferred_batch_size):
        reason = "the guard looks at each image alone, and a request that waits here gains nothing"
        remedy = "write it for the decode and the engine step"
        yield model.finding("delay-on-the-guard", "dynamic_batching", reason, remedy)
    for name in ("threads", "num_threads"):
        if GPU in kinds and model.parameter(name) == "1":
            reason = "1 for a decoder on a GPU, which waits for the CPU to decode Huffman codes"
            yield model.finding("decoder-threads", f"parameters[{name!r}]", reason, "write 2 or more")


def _graphs(model: Model) -> Findings:
    cuda = model.config.optimization.cuda
    field = "optimization.cuda.graph_spec"

    def wrong(reason: str, where: str = field) -> Finding:
        return model.finding("cuda-graphs", where, reason, "write one for each of 1, 2, 4, 8 and so on")

    if cuda.graphs and not cuda.graph_spec:
        yield wrong("none: graphs are captured for batches of 1 and the largest alone")
    if cuda.graph_spec and not cuda.graphs:
        yield wrong("false, so none is captured", "optimization.cuda.graphs")
    inputs = {tensor.name: list(tensor.dims) for tensor in model.config.input}
    for index, graph in enumerate(cuda.graph_spec):
        if not 1 <= graph.batch_size <= model.config.max_batch_size:
            yield wrong(f"a batch of {graph.batch_size} of 1 to {model.config.max_batch_size}", f"{field}[{index}]")
        shapes = {name: list(shape.dim) for name, shape in graph.input.items()}
        if shapes != inputs:
            yield wrong(f"inputs {shapes}, and the model has {inputs}", f"{field}[{index}]")


def _decoder(model: Model) -> Findings:
    """Look for the calls that make a decoder, without running them."""
    for path in sorted(path for path in model.files.glob("*.py") if path.is_file()):
        tree = parse(path.read_bytes())
        if isinstance(tree, str):
            continue  # a finding of the steps' own
        where = f"{model.files.name}/{path.name}"
        for line in _always_hardware(tree):
            problem = f"{HARDWARE_IS_ON} ({HARDWARE_KIND}, whatever hardware_jpeg says)"
            yield model.finding("decoder-settings", f"line {line}", problem, AGAIN, file=where)
        literals = Literals(tree, path.parent)
        for call in (node for node in walked(tree) if isinstance(node, ast.Call)):
            given = {word.arg: literals.value(word.value) for word in call.keywords}
            for problem in _problems(literals.dotted(call.func), given):
                yield model.finding("decoder-settings", f"line {call.lineno}", problem, AGAIN, file=where)


def _always_hardware(tree: ast.Module) -> list[int]:
    """The lines that name the hardware decoder and do not stand under `if … and hardware_jpeg`."""
    named = [node for node in walked(tree) if isinstance(node, ast.Attribute) and node.attr == HARDWARE_KIND]
    asked = {id(node) for branch in walked(tree) for node in _if_asked(branch)} if named else set()
    return [node.lineno for node in named if id(node) not in asked]


def _if_asked(branch: ast.AST) -> Iterable[ast.AST]:
    if isinstance(branch, ast.If):
        test = branch.test
        conditions = test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]
        if any(isinstance(one, ast.Name) and one.id == "hardware_jpeg" for one in conditions):
            yield from (node for statement in branch.body for node in ast.walk(statement))


def _problems(function: str, given: dict[str | None, Any]) -> Iterable[str]:
    if DALI_DECODER.search(function):
        if given.get("jpeg_fancy_upsampling") is not True:
            yield "chroma is interpolated otherwise than on a CPU (jpeg_fancy_upsampling)"
        share = given.get("hw_decoder_load")
        if share is None or (isinstance(share, int | float) and share != 0):
            yield f"{HARDWARE_IS_ON} (hw_decoder_load{'' if share is None else f' {share}'})"
    elif CODEC_DECODER.search(function):
        if FANCY not in str(given.get("options")):
            yield "chroma is interpolated otherwise than on a CPU (options)"
        if not given.get("backends"):
            yield f"{HARDWARE_IS_ON} (backends)"


def _declared_pixels(model: Model) -> Findings:
    """Look for the limit on the pixels that the images of a batch declare: the native form refuses a request, the
    isolated form decodes piece by piece."""
    for file, is_bound in (("guarded_batch.py", _refuses_too_many), ("preprocess.py", _decodes_pieces)):
        path = model.files / file
        tree = parse(path.read_bytes()) if path.is_file() else ""
        if not isinstance(tree, str) and not any(map(is_bound, walked(tree))):
            reason = f"nothing bounds the pixels that the images of a batch declare ({MOST_PIXELS})"
            yield model.finding("pixels-unbounded", "", reason, AGAIN, file=f"{model.files.name}/{file}")


def _refuses_too_many(node: ast.AST) -> bool:
    """`if … > MAX_BATCH_PIXELS: raise …`"""
    if not isinstance(node, ast.If) or not isinstance(node.test, ast.Compare):
        return False
    named = {word.id for word in node.test.comparators if isinstance(word, ast.Name)}
    return MOST_PIXELS in named and any(isinstance(statement, ast.Raise) for statement in node.body)


def _decodes_pieces(node: ast.AST) -> bool:
    """`for piece in pieces(declared_n): … decode …`"""
    return isinstance(node, ast.For) and ast.unparse(node.iter) == "pieces(declared_n)"


def _warmups(steps: list[Model]) -> Findings:
    for model in steps:
        samples = model.config.model_warmup
        others_have = any(other.config.model_warmup for other in steps)
        if not samples and others_have and not model.name.startswith(GROUP):  # it would ask for every head of the group
            reason = "none, though other steps have one: the first requests wait for what is loaded on first use"
            yield model.finding("warmup-missing", "model_warmup", reason, AGAIN)
        images = {tensor.name for tensor in model.config.input} & {"IMAGE", "encoded"}
        for index, sample in enumerate(samples):
            for name in sorted(images & set(sample.inputs)):
                if not sample.inputs[name].input_data_file:
                    cold = "so the decoder stays cold, and NVIDIA's DALI backend does not load"
                    reason = f"{name} is not an image, {cold}"
                    yield model.finding("warmup-missing", f"model_warmup[{index}]", reason, AGAIN)


def _one_place(repository: Repository) -> Findings:
    for name, steps in repository.ensembles.items():
        models = [repository.models[step] for step in steps if step in repository.models]
        places = {
            model.name: _gpus(tuple(group.gpus) or None)
            for model in models
            for group in model.config.instance_group
            if group.kind == GPU
        }
        if len(set(places.values())) > 1:
            reason = f"{listed(f'{step} on {place}' for step, place in places.items())}: batches move between them"
            field, remedy = "ensemble_scheduling.step", "give all steps the same gpus"
            yield repository.models[name].finding("gpus-differ", field, reason, remedy)


def _used(repository: Repository) -> list[str]:
    used = dict.fromkeys(step for steps in repository.ensembles.values() for step in steps)
    return [name for name in used if name in repository.models and repository.models[name].problem is None]
