"""Checks label files, which Triton reads for its classification extension (`class_count`) without checking them."""

import math
from collections import Counter
from typing import Any

from slipway.contract.labels import odd_in
from slipway.lint.finding import Finding, Findings
from slipway.lint.models import Model, type_name


def check_labels(model: Model) -> Findings:
    """Check every `label_filename` of a configuration, and its file."""
    for index, tensor in enumerate(model.config.output):
        if not tensor.label_filename:
            continue
        field, path = f"output[{index}].label_filename", model.folder / tensor.label_filename
        if type_name(tensor) == "TYPE_STRING":
            reason = f"{tensor.name} holds bytes, and a request for its classes ends the server"
            yield model.finding("labels-on-bytes", field, reason, "name labels only for an output of numbers")
        elif not path.is_file():
            remedy = "write it with one label per line, or remove label_filename"
            yield model.finding("labels-missing", field, f"{tensor.label_filename} is missing", remedy)
        else:
            yield from _file(model, tensor, path.read_bytes())


def _file(model: Model, tensor: Any, data: bytes) -> Findings:
    def wrong(rule: str, reason: str) -> Finding:
        remedy = f"write the {tensor.name} labels in their order, one per line"
        return model.finding(rule, "", reason, remedy, file=tensor.label_filename)

    try:
        labels = data.decode().removesuffix("\n").split("\n") if data else []
    except UnicodeDecodeError as error:
        yield wrong("labels-text", f"byte {data[error.start]:#04x} at {error.start} is not UTF-8")
        return
    classes = math.prod(tensor.dims)
    if len(labels) != classes and -1 not in tensor.dims:
        yield wrong("labels-count", f"{len(labels)} labels, and {tensor.name} has {classes} values")
    odd = [label for label in labels if odd_in(label)]
    if odd:
        yield wrong("labels-text", f"{odd[0]!r}: {odd_in(odd[0])}")
    twice = [label for label, count in Counter(labels).items() if count > 1 and label]
    if twice:
        yield wrong("labels-text", f"{twice[0]!r} stands for {labels.count(twice[0])} classes")
