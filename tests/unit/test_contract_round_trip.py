"""Preprocess, Decision and Spec round-trip: what is written reads back as it was, in the same bytes."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from slipway.contract import Decision, Preprocess, Spec
from slipway.contract.typed_file import Contract

MEANS: dict[str, Any] = {"int8": "AAAA", "step": 0.5}

probabilities = st.floats(0.0, 1.0)
fractions = st.floats(0.05, 0.4)
seeds = st.integers(0, 2**32 - 1)
positive = st.floats(0.0, 1e6, exclude_min=True)

preprocesses = st.fixed_dictionaries(
    {"input_height": st.integers(8, 4096), "input_width": st.integers(8, 4096)},
    optional={
        "interpolation": st.sampled_from(["linear", "cubic"]),
        "antialias": st.booleans(),
        "mean": st.tuples(probabilities, probabilities, probabilities),
        "std": st.tuples(*[st.floats(0.0, 1.0, exclude_min=True)] * 3),
        "pad_value": st.integers(0, 255),
        "exif_orientation": st.booleans(),
        "decoder": st.sampled_from(["cpu", "mixed"]),
    },
).flatmap(
    lambda data: st.one_of(
        st.just({**data, "resize": "pad"}),
        st.floats(0.1, 1.0, exclude_min=True).map(lambda crop: {**data, "resize": "crop", "crop_fraction": crop}),
    )
)
decisions = st.one_of(
    st.fixed_dictionaries(
        {"task": st.just("multiclass"), "top_k": st.integers(1, 1000), "temperature": st.floats(1e-3, 1000.0)},
        optional={
            "unknown": st.none()
            | st.fixed_dictionaries({"threshold": probabilities})
            | st.fixed_dictionaries({"score": st.just("energy"), "threshold": st.floats(-1e6, 1e6)})
            | st.fixed_dictionaries(
                {"score": st.just("embedding"), "threshold": st.floats(-1e6, 0), "class_means": st.just(MEANS)}
            )
        },
    ),
    st.fixed_dictionaries(
        {
            "task": st.just("multilabel"),
            "top_k": st.integers(1, 1000),
            "thresholds": st.lists(probabilities, min_size=1, max_size=20),
        }
    ),
)
specs = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[a-d][a-z0-9_]{0,50}[0-9]", fullmatch=True),
        "data": st.fixed_dictionaries(
            {"root": st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1)},
            optional={"validation_fraction": fractions, "test_fraction": fractions, "seed": seeds},
        ),
        "preprocess": preprocesses,
        "backbone": st.fixed_dictionaries({"name": st.text(min_size=1)}, optional={"pretrained": st.booleans()}),
    },
    optional={
        "task": st.sampled_from(["multiclass", "multilabel"]),
        "recipe": st.fixed_dictionaries(
            {},
            optional={
                "epochs": st.integers(1, 10**6),
                "learning_rate": positive,
                "weight_decay": st.floats(0.0, 1e3),
                "augment": st.fixed_dictionaries(
                    {},
                    optional={
                        "crop_scale": st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1.0)),
                        "rotate_degrees": st.floats(0.0, 180.0),
                        "policy": st.just({"kind": "rand", "magnitude": 3}) | st.none(),
                        "minority": st.fixed_dictionaries({}, optional={"below": st.floats(0.01, 1.0)}),
                        "mix": st.fixed_dictionaries({"cutmix_alpha": st.floats(0.1, 10.0)}),
                    },
                ),
                "loss": st.fixed_dictionaries({"kind": st.just("focal")}, optional={"gamma": st.floats(0.0, 10.0)})
                | st.fixed_dictionaries({"class_weights": st.just("effective_number"), "beta": st.floats(0.0, 0.9999)}),
                "seed": seeds,
            },
        ),
        "decision": st.fixed_dictionaries(
            {}, optional={"top_k": st.integers(1, 1000), "unknown_threshold": st.none() | probabilities}
        ),
        "calibration": st.fixed_dictionaries(
            {}, optional={"images": st.integers(1, 10**6), "method": st.sampled_from(["entropy", "max"])}
        ),
        "precisions": st.lists(st.sampled_from(["fp32", "fp16", "bf16", "int8"]), min_size=1, unique=True),
        "sensitive_layers": st.fixed_dictionaries(
            {}, optional={"max_steps": st.integers(0, 64), "images": st.integers(1, 10**6)}
        ),
        "accuracy": st.fixed_dictionaries(
            {}, optional={"max_loss_points": st.floats(0.01, 100.0), "prove_classes": st.booleans()}
        ),
        "tensorrt": st.fixed_dictionaries(
            {}, optional={"optimization_level": st.integers(0, 5), "version_compatible": st.booleans()}
        ),
        "latency": st.fixed_dictionaries({}, optional={"p99_ms": positive, "rate_per_s": positive}),
        "serving": st.fixed_dictionaries({}, optional={"max_batch_size": st.integers(1, 128)}),
    },
).filter(lambda data: data.get("task") != "multilabel" or data.get("decision", {}).get("unknown_threshold") is None)


def check_round_trip(model: type[Contract], data: dict[str, Any]) -> None:
    first = model.parse(data, source="first")
    text = first.to_json()
    again = model.parse(json.loads(text), source="again")
    assert again == first
    assert again.to_json() == text
    backwards = model.parse(dict(reversed(json.loads(text).items())), source="keys in another order")
    assert backwards.to_json() == text
    assert text.endswith("}\n")


@given(preprocesses)
def test_preprocess_round_trips(data: dict[str, Any]) -> None:
    check_round_trip(Preprocess, data)


@given(decisions)
def test_decision_round_trips(data: dict[str, Any]) -> None:
    check_round_trip(Decision, data)


@given(specs)
def test_spec_round_trips(data: dict[str, Any]) -> None:
    check_round_trip(Spec, data)


def test_a_negative_zero_writes_the_same_bytes_as_zero() -> None:
    zero, negative = (
        Decision.parse({"task": "multiclass", "top_k": 3, "unknown": {"threshold": threshold}}, source="here")
        for threshold in (0.0, -0.0)
    )
    assert negative == zero
    assert negative.to_json() == zero.to_json()
