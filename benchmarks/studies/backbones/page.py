"""Renders docs/backbones.md from the result file of the study."""

from collections.abc import Mapping, Sequence
from typing import Any

Cells = Mapping[str, Any]
MEGABYTE = 1e6


def render(result: Cells, *, source: str) -> str:
    """Render the page; equal results give equal text."""
    reasons: list[str] = []
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result["versions"].items()))
    parts = [
        "# Backbones",
        "",
        f"Rendered from `benchmarks/results/{source}`, which `make study-backbones` writes. {machine['processor']}, "
        f"{machine['cores']} cores, no GPU. {versions}.",
        "",
        "## Compiled: full size, random weights",
        "",
        "What compiles, how large it gets, and how fast it is. Accuracy means nothing here; how far a precision moves",
        "the logits of photographs does: `cosine` is the similarity with FP32 of logits without their mean, `agree`",
        "the share of images with the same best class of 1,000. Plans are TensorRT-RTX's: proof that the graph",
        "compiles, and their size. CPU speeds are OpenVINO's, one thread, one image at a time from JPEG to logits, as",
        "ratios to FP32 in interleaved rounds (10th to 90th percentile). `chosen` was measured a second time, against",
        "FP32 alone. An FP16 graph computes in FP32 on a CPU: its column is about its weights.",
        "",
        *table(
            ("backbone", "px", "parameters M", "GFLOPs", "INT8 layers", "plan MB: FP32", "FP16", "INT8", "INT8 ÷ FP32"),
            [size_cells(name, cells, reasons) for name, cells in result["compiled"].items()],
        ),
        "",
        *table(
            (
                *("backbone", "FP16 cosine / agree", "BF16 cosine / agree", "INT8 cosine / agree", "FP32 ms"),
                *("BF16 speed", "INT8 speed", "chosen", "its speed"),
            ),
            [speed_cells(name, cells, reasons) for name, cells in result["compiled"].items()],
        ),
        "",
        "## Trained: small, on the demo's digits",
        "",
        "Through the ordinary scripts, with the spec of `training/configs/digits.yaml`. `lost / gained` counts test",
        "images (of 540) that FP32 has right and the engine wrong, and the other way round. `kept FP16` is how many",
        "layers the search on the validation split kept in FP16 before INT8 was accepted (0: plain INT8 was fine), and",
        "`plain INT8 loses` what it lost there with none, in points. `-max` sets the ranges by the largest values.",
        "",
        *table(
            (
                *(
                    "backbone",
                    "FP32 top-1",
                    "INT8 top-1",
                    "lost / gained",
                    "verdict",
                    "plain INT8 loses",
                    "kept FP16",
                    "BF16 lost / gained",
                ),
                *("chosen", "its speed"),
            ),
            [trained_cells(name, cells, reasons) for name, cells in result["trained"].items()],
        ),
        "",
    ]
    if reasons:
        parts += ["## Cells that could not be made", "", *(f"{i}. {reason}" for i, reason in enumerate(reasons, 1)), ""]
    return "\n".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [" | ".join(head), " | ".join(["---", *["---:"] * (len(head) - 1)]), *(" | ".join(row) for row in rows)]
    return [f"| {line} |" for line in lines]


def size_cells(name: str, cells: Cells, reasons: list[str]) -> list[str]:
    def megabytes(precision: str) -> str:
        return cell(lambda: f"{cells[f'plan_{precision}']['bytes'] / MEGABYTE:.1f}", cells, f"plan_{precision}")

    def cell(make: Any, cells: Cells, key: str) -> str:
        return value_or_reason(make, cells, key, name, reasons)

    return [
        name,
        cell(lambda: str(cells["input"]), cells, "input"),
        cell(lambda: f"{cells['parameters'] / 1e6:.1f}", cells, "parameters"),
        cell(lambda: f"{cells['gflops']:.2f}", cells, "gflops"),
        cell(lambda: f"{cells['int8']['int8_layers']} of {cells['int8']['layers']}", cells, "int8"),
        *(megabytes(precision) for precision in ("fp32", "fp16", "int8")),
        cell(lambda: f"{cells['plan_int8']['bytes'] / cells['plan_fp32']['bytes']:.2f}", cells, "plan_int8"),
    ]


def speed_cells(name: str, cells: Cells, reasons: list[str]) -> list[str]:
    def cell(make: Any, key: str) -> str:
        return value_or_reason(make, cells, key, name, reasons)

    def likeness(precision: str) -> str:
        return cell(
            lambda: "{cosine:.4f} / {agreement:.0%}".format(**cells["openvino"][precision]),
            precision if precision != "bf16" else "openvino",
        )

    return [
        name,
        *(likeness(precision) for precision in ("fp16", "bf16", "int8")),
        cell(lambda: f"{cells['speed']['fp32']['median_ms']:.1f}", "speed"),
        *(cell(lambda p=p: spread(cells["speed"][p]), "int8" if p == "int8" else "speed") for p in ("bf16", "int8")),
        cell(lambda: str(cells["chosen"]["precision"]), "chosen"),
        cell(lambda: spread(cells["chosen"]), "chosen"),
    ]


def trained_cells(name: str, cells: Cells, reasons: list[str]) -> list[str]:
    def cell(make: Any, key: str) -> str:
        return value_or_reason(make, cells, key, name, reasons)

    def flips(engine: str) -> str:
        return "{lost} / {gained}".format(**cells[engine]["gate"]["overall"])

    def chosen() -> Cells:
        return next(c for c in cells["choice"]["candidates"] if c["engine"] == cells["choice"]["chosen"])

    return [
        name,
        cell(lambda: f"{cells['openvino-fp32']['top1']:.2%}", "openvino-fp32"),
        cell(lambda: f"{cells['openvino-int8']['top1']:.2%}", "int8_ended"),
        cell(lambda: flips("openvino-int8"), "int8_ended"),
        cell(lambda: str(cells["openvino-int8"]["gate"]["verdict"]), "int8_ended"),
        cell(lambda: f"{cells['search']['steps'][0]['validation']['loss_points']:.2f}", "int8_ended"),
        cell(lambda: str(len(cells["search"]["steps"][-1]["kept_fp16"])), "int8_ended"),
        cell(lambda: flips("openvino-bf16"), "openvino-bf16"),
        cell(lambda: str(chosen()["precision"]), "choice"),
        cell(lambda: spread(chosen()), "choice"),
    ]


def spread(speed: Cells) -> str:
    if "speed_low" not in speed:
        return f"{speed['speed_to_fp32']:.2f}"
    return f"{speed['speed_to_fp32']:.2f} ({speed['speed_low']:.2f} to {speed['speed_high']:.2f})"


def value_or_reason(make: Any, cells: Cells, key: str, name: str, reasons: list[str]) -> str:
    """Return the value, or the number of a note that says why the cell, or the whole row, has none."""
    try:
        return str(make())
    except (KeyError, TypeError):
        pass
    value = cells.get(key)
    reason = value.get("reason") if isinstance(value, Mapping) else value
    words = reason or cells.get("ended") or "this processor has no such arithmetic"
    text = f"{name}: {words}".replace("|", "/")
    if text not in reasons:
        reasons.append(text)
    return f"[{reasons.index(text) + 1}]"
