"""Writes the files of an operator: specs, fleet and gateway."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.system.yaml_json import dump_yaml

if TYPE_CHECKING:
    from benchmarks.studies.operate.box import Box

_SIZE = {"input_height": 64, "input_width": 64, "resize": "crop", "pad_value": 228}
_SPLIT = {"validation_fraction": 0.1, "test_fraction": 0.3}
_AUGMENT = {"horizontal_flip": False, "crop_scale": [0.75, 1.0], "rotate_degrees": 12}


def write_first(run: Path) -> None:
    """Write `network.yaml` and `base.yaml`: a backbone that is trained on the data in `data`, and a base of it."""
    network = {
        "name": "network",
        "task": "multiclass",
        "data": {"root": str(run / "data"), **_SPLIT},
        "preprocess": _SIZE,
        "backbone": {"name": "resnet10t", "pretrained": False},
        "recipe": {"epochs": 4, "batch_size": 32, "learning_rate": 0.003, "weight_decay": 0.05, "augment": _AUGMENT},
    }
    base = {
        "name": "strokes",
        "backbone": {"name": "resnet10t", "weights": str(run / "network/model.safetensors")},
        "preprocess": _SIZE,
        "images": str(run / "data"),
        "calibration": {"images": 200},
    }
    for name, content in (("network", network), ("base", base)):
        (run / f"{name}.yaml").write_text(dump_yaml(content), encoding="utf-8")


def write_head(spec: Path, *, data: Path, table: Path | None = None) -> None:
    """Write the spec of a head for class folders, or for a table of images. Its limit on lost accuracy is one that some
    300 test images can prove."""
    source = {"root": str(data), **_SPLIT}
    if table is not None:
        source = {"root": str(data), "csv": str(table), "labels": str(data / "labels.txt")}
    tolerated = {"max_loss_points": 3, "max_class_loss_points": 20, "max_flip_points": 10, "prove_classes": False}
    content = {"name": "digits", "data": source, "accuracy": tolerated}
    spec.write_text(dump_yaml(content), encoding="utf-8")


def write_fleet(run: Path, *, active: str, candidate: str) -> None:
    """Write `fleet.yaml` with one head, and the run that is tried beside it; a turn replaces the head.

    Shares of errors under 2 % count as none, 5 % may be late, and the verdict may come at once: minutes of requests
    cannot prove less."""
    content = {
        "bases": {"strokes": {"base": "strokes", "heads": {"digits": active}}},
        "release": {
            "candidate": {"digits": candidate},
            "weight": 50,
            "judge": {"negligible_share": 0.02, "slow_share": 0.05, "bake_minutes": 0},
        },
    }
    (run / "fleet.yaml").write_text(dump_yaml(content), encoding="utf-8")


def write_gateway(run: Path, box: "Box") -> None:
    """Write `gateway.yaml`, with a journal of every request."""
    content = {
        "listen": f"127.0.0.1:{box.own.grpc}",
        "metrics_port": box.own.metrics,
        "repository": "repository",
        "stable": _ports(vars(box.stable)),
        "candidate": _ports(vars(box.candidate)),
        "teams": {"clients": {"key_file": "clients.key", "per_second": 1000}},
        "budgets_ms": {"digits": 100},
        "observe": {
            **{"share": 1.0, "per_second": 100, "journal": "journal", "spool": "spool"},
            "metrics_port": box.own.http,
        },
        "watch": {"reference_rows": 800, "metrics_port": box.own.status},
        "labels": {"per_day": 200},
    }
    if box.studio is not None:
        settings = {"url": box.studio.url, "token_file": str(box.studio.token_file.resolve())}
        content["labels"] = {"per_day": 200, "label_studio": settings}
    (run / "gateway.yaml").write_text(dump_yaml(content), encoding="utf-8")


def _ports(given: Mapping[str, int]) -> dict[str, int]:
    return {name: given[name] for name in ("grpc", "http", "metrics", "status")}
