#!/usr/bin/env python3
"""Check that every timm model can be a backbone: it gives timm's logits and an embedding, and trains a step."""

import argparse
import gc
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from benchmarks.studies.study import provenance
from benchmarks.studies.timm_models.result import Checked, TimmResult, Tried
from slipway.system.arguments import Parser
from slipway.system.process import run

ROOT = Path(__file__).parents[3]
RESULT, PAGE = ROOT / "benchmarks/results/timm_models.json", ROOT / "docs/timm.md"
MOST_PIXELS, MOST_PARAMETERS = 300, 40e6
SIDE = 128  # of models that take any size: a third of the time of their own 224 px
CLASSES, BATCH, SEED = 5, 2, 0
TARGET = 0.99
EPILOG = """example:
  nice python -m benchmarks.studies.timm_models                   all models; it goes on where it was stopped
  python -m benchmarks.studies.timm_models --sample               one model of each family
  python -m benchmarks.studies.timm_models --only 'levit*' --out /tmp/levit.json --page /tmp/levit.md

exit status: 0; 1 where fewer than 99 % of the models that were tried can be used"""


def main(arguments: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # as in training
    families = by_family(arguments.only)
    wanted = [models[0] for models in families.values()] if arguments.sample else interleaved(families.values())
    result = begin(arguments.out, fresh=arguments.fresh)
    done = result.models.keys() | result.left_out.keys()
    for name in tqdm([name for name in wanted if name not in done], unit="model", disable=None):
        if reason := outside(name):
            result.left_out[name] = reason
        else:
            first_of_family = families[family(name)][0] == name or family(name) not in result.families
            result.models[name] = tried(name, mlp=first_of_family)
        write(arguments.out, result.to_json())
        gc.collect()
    write(arguments.page, page(result, source=arguments.out.name))
    usable = sum(row.usable for row in result.models.values())
    print(f"{arguments.out}: {usable} of {len(result.models)} models can be used; {arguments.page}")
    return 0 if usable >= TARGET * len(result.models) else 1


def family(name: str) -> str:
    """Return the file of timm that defines the model."""
    from timm.models import model_entrypoint

    return str(model_entrypoint(name).__module__).rpartition(".")[2]


def by_family(pattern: str) -> dict[str, list[str]]:
    import timm

    families: dict[str, list[str]] = {}
    for name in timm.list_models():
        if fnmatch(name, pattern):
            families.setdefault(family(name), []).append(name)
    return families


def interleaved(families: Iterable[Sequence[str]]) -> list[str]:
    """Order models as the first of each family, then the second of each, so that a stopped run has seen every
    family."""
    return [name for row in zip_longest(*families) for name in row if name]


def outside(name: str) -> str | None:
    """Return the reason why the model is not part of the question, or None."""
    import timm
    import torch

    if max(timm.get_pretrained_cfg(name).input_size) > MOST_PIXELS:
        return f"over {MOST_PIXELS} px"
    with torch.device("meta"):
        model = timm.create_model(name)
    many = sum(parameter.numel() for parameter in model.parameters()) > MOST_PARAMETERS
    return f"over {MOST_PARAMETERS / 1e6:.0f} M parameters" if many else None


def tried(name: str, *, mlp: bool) -> Tried:
    import timm

    from slipway.contract import SpecError

    config = timm.get_pretrained_cfg(name)
    own = tuple(config.input_size[1:])
    sizes = [own] if config.fixed_input_size else list(dict.fromkeys((tuple(min(side, SIDE) for side in own), own)))
    started, found = time.monotonic(), Checked()
    for size in sizes:
        reason, by_name = None, False
        try:
            found = check(name, size, kinds=("linear", "mlp") if mlp else ("linear",))
            break
        except Exception as error:  # of any library: one model must not cost the others
            reason, by_name = f"{type(error).__name__}: {error}".splitlines()[0], isinstance(error, SpecError)
    row = Tried(
        family=family(name), usable=not reason, px=size, seconds=round(time.monotonic() - started, 1), **found.fields()
    )
    return row.model_copy(update={"reason": reason, "refused_by_name": by_name}) if reason else row


def check(name: str, size: tuple[int, int], *, kinds: Sequence[Literal["linear", "mlp"]]) -> Checked:
    """Raise an error if a network with this backbone and one of these heads is not as it should be."""
    import timm
    import torch

    from slipway.contract.recipe import HeadRecipe
    from slipway.contract.spec import Backbone
    from slipway.training.learn.network import Network

    backbone, found = Backbone(name=name, pretrained=False), Checked()
    for kind in kinds:
        torch.manual_seed(SEED)
        head = HeadRecipe(kind=kind, units=8)
        network = Network(backbone, classes=CLASSES, pretrained=False, input_size=size, head=head).eval()
        for parameter in network.head_parameters():  # sequencer's are 0 at first, and any logits would be equal
            torch.nn.init.normal_(parameter, std=0.1)
        pixels_nchw = torch.randn(BATCH, 3, *size)
        with torch.no_grad():
            logits_nc, embedding_nd = network(pixels_nchw)
            if kind == "linear":  # compared with a model that timm alone made
                own = timm.create_model(name, num_classes=CLASSES).eval()
                own.load_state_dict(network.backbone.state_dict())
                own_nc = own(pixels_nchw)
                difference = float((logits_nc - own_nc).abs().max() / own_nc.abs().max())
                assert difference <= 1e-4, f"logits differ from timm's by {difference:.2g} of the largest"
        assert logits_nc.shape == (BATCH, CLASSES), f"logits {list(logits_nc.shape)}"
        assert embedding_nd.ndim == 2, f"embedding {list(embedding_nd.shape)}"
        train(network, pixels_nchw)
        if kind == "linear":
            parameters = sum(parameter.numel() for parameter in network.parameters())
            constructor, embedding = type(network.backbone).__name__, embedding_nd.shape[1]
            found = Checked(constructor=constructor, parameters=parameters, embedding=embedding)
        else:
            found = found.model_copy(update={"mlp": True})
    return found


def train(network: Any, pixels_nchw: Any) -> None:
    """Compute the gradients of one step, in the memory format of training."""
    import torch

    from slipway.training.learn.network import memory_format

    order = memory_format(network)
    network.train().to(memory_format=order)
    logits_nc, _ = network(pixels_nchw.contiguous(memory_format=order))
    loss = torch.nn.functional.cross_entropy(logits_nc, torch.arange(BATCH))
    assert torch.isfinite(loss), f"loss {loss}"
    torch.autograd.backward(loss)
    for parameter in network.head_parameters():
        assert parameter.grad is not None, "a weight of the head gets no gradient"
        assert torch.isfinite(parameter.grad).all(), "a gradient that is not finite"


def begin(path: Path, *, fresh: bool) -> TimmResult:
    """Read the result of an earlier run with these versions, or begin an empty one."""
    origin = provenance(("torch", "timm"))
    if path.is_file() and not fresh:
        earlier = TimmResult.read(path)
        if earlier.versions == origin["versions"]:
            return earlier
    return TimmResult(**origin, seed=SEED, models={}, left_out={})


def write(path: Path, text: str) -> None:
    """Write the file whole or not at all."""
    staging = path.with_name(f".{path.name}.part")
    staging.write_text(text, encoding="utf-8")
    os.replace(staging, path)


def page(result: TimmResult, *, source: str) -> str:
    """Render docs/timm.md; equal results give equal text."""
    models = result.models
    usable = sum(row.usable for row in models.values())
    counts = Counter(result.left_out.values())
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result.versions.items()))
    refused = [
        f"- `{name}`: {row.reason}{'' if row.refused_by_name else ' (not refused at once)'}"
        for name, row in sorted(models.items())
        if not row.usable
    ]
    return "\n".join(
        [
            "# timm models as backbones",
            "",
            f"Rendered from `benchmarks/results/{source}`, which `python -m benchmarks.studies.timm_models` writes.",
            f"{versions}.",
            "",
            f"**{usable} of {len(models)}** models of at most 40 M parameters and 300 px that were tried can be used: "
            "with random weights, their",
            "logits are those of timm's own `forward`, the embedding is one vector for each image, and a step of "
            "training has finite",
            f"gradients. Models that take any size were tried at {SIDE} px, the others at their own. Not part of the "
            "question: " + (", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "none") + ".",
            "",
            "The **embedding** is the input of the model's classifier, before dropout. A model with several "
            "classifiers, whose logits",
            "timm averages (distilled deit, crossvit, efficientvim), has the inputs of all of them side by side. "
            "`mlp` says whether",
            "`recipe.head.kind: mlp` was tried with a model of the family; its embedding is the output of the timm "
            "model without a",
            "classifier.",
            "",
            "| family | usable | constructors | embedding | mlp |",
            "| --- | ---: | --- | ---: | --- |",
            *(line(name, [row for row in models.values() if row.family == name]) for name in sorted(result.families)),
            "",
            "## Models that cannot be used",
            "",
            *(refused or ["None of those that were tried."]),
            "",
        ]
    )


def line(name: str, rows: Sequence[Tried]) -> str:
    sizes = sorted(row.embedding for row in rows if row.usable)
    embedding = "" if not sizes else f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
    constructors = ", ".join(sorted({row.constructor for row in rows if row.usable}))
    usable = sum(row.usable for row in rows)
    mlp = "yes" if any(row.mlp for row in rows) else ""
    return f"| {name} | {usable} of {len(rows)} | {constructors} | {embedding} | {mlp} |"


def parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", metavar="PATTERN", default="*", help="models whose name matches, such as 'levit*'")
    parser.add_argument("--sample", action="store_true", help="one model of each family")
    parser.add_argument("--fresh", action="store_true", help="begin anew, whatever the result file has")
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULT,
        help=f"result file, which a run continues; default: {RESULT.relative_to(ROOT)}",
    )
    parser.add_argument(
        "--page", type=Path, default=PAGE, help=f"page that is rendered from it; default: {PAGE.relative_to(ROOT)}"
    )
    return parser


if __name__ == "__main__":
    run(main, parser())
