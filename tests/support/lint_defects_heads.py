"""Seeded defects of the heads of a base: of their files, of the ensembles over them, and of what lane.json says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import model_config_pb2 as pb

from tests.support.lint_changes import Change, edit, in_lane, instance, model, put, read, remove, write
from tests.support.seeded_defects import Defect, broken

HEAD = "1/heads/h0001"
"""A head of three classes, whose answer may be `unknown`."""
OTHER_BUNDLE = f"{'0' * 64}\n"


def weights(change: Callable[[Any], Any]) -> Change:
    """Change the first weights of the head."""

    def changed(repository: Path) -> None:
        path = model(repository, "heads") / HEAD / "head.npz"
        with np.load(path) as arrays:
            content = dict(arrays)
        np.savez(path, **(content | {"weight_0": change(content["weight_0"])}))

    return changed


def decided(head: str, **changes: Any) -> Change:
    def changed(repository: Path) -> None:
        path = model(repository, "heads") / "1/heads" / head / "decision.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return changed


def of_another_head(config: Any) -> None:
    (mapping,) = (s.output_map for s in config.ensemble_scheduling.step if s.model_name.startswith("heads_"))
    del mapping["h0000.LABEL"]
    mapping["h0002.LABEL"] = "LABEL"


def copied_head(repository: Path) -> None:
    folder = model(repository, "heads") / "1/heads"
    (folder / "h9999").mkdir()
    (folder / "h9999/bundle.txt").write_bytes((folder / "h0001/bundle.txt").read_bytes())


def one_head_unnamed(repository: Path) -> None:
    bases = json.loads((repository / "lane.json").read_text())["bases"]
    bases["tiny"]["heads"].remove("h0001")
    in_lane(bases=bases)(repository)


def in_json(which: str, file: str, **changes: Any) -> Change:
    def changed(repository: Path) -> None:
        path = model(repository, which) / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return changed


def no_status(repository: Path) -> None:
    """The group neither takes the status, nor is it given one."""
    for folder in (path.parent for path in repository.glob("h*/config.pbtxt")):
        config = read(folder)
        if folder.name.startswith("heads_"):
            (status,) = (tensor for tensor in config.input if tensor.name == "image_status")
            config.input.remove(status)
        else:
            first, *_, last = config.ensemble_scheduling.step
            del first.output_map["image_status"], last.input_map["image_status"]
        write(folder, config)


HEADS: tuple[Defect, ...] = (
    *broken("group-inputs", "heads/config.pbtxt", "heads", group_without_the_status=no_status),
    *broken(
        "files-differ",
        "heads/1/base.json",
        "heads",
        group_of_another_base=in_json("heads", "1/base.json", id="0" * 64),
        group_of_another_engine=in_json("heads", "1/base.json", graph_sha256="0" * 64),
        group_of_no_base=remove("heads", "1/base.json"),
    ),
    *broken("file-broken", "heads/1/base.json", "heads", group_of_a_broken_base=put("heads", "1/base.json", "{")),
    *broken(
        "files-differ",
        "heads/1/base.json",
        "gpu_heads",
        plan_of_another_base=in_json("engine", "1/engine_sm90.json", graph_sha256="0" * 64),
        heads_for_another_plan=in_json("heads", "1/base.json", graph_sha256="1" * 64),
    ),
    *broken("group-inputs", "heads/config.pbtxt", "gpu_heads", gpu_group_without_the_status=no_status),
    *broken(
        "post-on-the-cpu",
        "heads/config.pbtxt",
        "gpu_heads",
        group_on_the_cpu=instance("heads", kind=pb.ModelInstanceGroup.KIND_CPU),
    ),
    *broken(
        "head-left-out",
        f"heads/{HEAD}/head.npz",
        "heads",
        head_with_nan=weights(lambda array: array * np.float32(np.nan)),
        head_of_a_smaller_embedding=weights(lambda array: array[:8]),
        head_of_more_classes_than_labels=put("heads", f"{HEAD}/labels.txt", "class0\nclass1\n"),
        head_that_is_damaged=put("heads", f"{HEAD}/head.npz", b"PK\x03\x04"),
    ),
    *broken(
        "head-left-out", f"heads/{HEAD}/labels.txt", "heads", head_without_labels=remove("heads", f"{HEAD}/labels.txt")
    ),
    *broken(
        "labels-text",
        f"heads/{HEAD}/labels.txt",
        "heads",
        label_of_a_head_twice=put("heads", f"{HEAD}/labels.txt", "class0\nclass1\nclass1\n"),
    ),
    *broken(
        "labels-differ",
        "h0001_full/labels.txt",
        "heads",
        labels_unlike_the_head_s=put("h0001_full", "labels.txt", "class1\nclass0\nclass2\n"),
    ),
    *broken(
        "file-broken",
        f"heads/{HEAD}/decision.json",
        "heads",
        head_of_a_broken_decision=put("heads", f"{HEAD}/decision.json", "{"),
    ),
    *broken("files-differ", f"heads/{HEAD}/decision.json", "heads", head_of_more_answers=decided("h0001", top_k=3)),
    *broken(
        "files-differ",
        "heads/1/heads/h0002/decision.json",
        "heads",
        head_of_other_thresholds=decided("h0002", thresholds=[0.5, 0.5]),
    ),
    *broken("files-differ", "heads/1/heads/h9999", "heads", head_without_outputs=copied_head),
    *broken("files-differ", "lane.json", "heads", head_of_no_base=one_head_unnamed),
    *broken(
        "bundle-differs",
        f"heads/{HEAD}/bundle.txt",
        "heads",
        head_of_another_bundle=put("heads", f"{HEAD}/bundle.txt", OTHER_BUNDLE),
    ),
    *broken("bundle-differs", "h0000/config.pbtxt", "heads", label_of_another_head=edit("h0000", of_another_head)),
)
