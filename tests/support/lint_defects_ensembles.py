"""Seeded defects of tensors, and of ensembles and their queues."""

from tests.support.lint_changes import (
    all_of,
    batched,
    edit,
    merge,
    on_step,
    public,
    queue,
    remap,
    rename_tensor,
    reshaped,
    set_dims,
    set_on,
    set_type,
    step_of,
    tensor,
)
from tests.support.seeded_defects import ENGINE, FIRST, FULL, ONE, POST, Defect, broken

BESIDE_EACH_OTHER = all_of(
    remap("page", "shades engine", "input", "after", None), remap("page", "colours post", "output", "PROBABILITY", None)
)
"""The fleet's two engines no longer wait for each other."""
LIMIT = "default_queue_policy { max_queue_size: 2 }"
TIMEOUT = "default_queue_policy { default_timeout_microseconds: 1000 }"
BATCH_INPUT = 'batch_input {{ kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: {} source_input: "{}" }}'

SWITCHED_OFF: tuple[Defect, ...] = (
    *broken("queue-limit", "preprocess/config.pbtxt", runs=5, limit_on_the_first_step=queue("preprocess", LIMIT)),
)
"""What `slipway.lint.ensembles.FIRST_STEP_MAY_HAVE_A_LIMIT` allows."""
TENSORS: tuple[Defect, ...] = (
    *broken(
        "tensor-incomplete",
        POST,
        tensor_without_dims=set_dims("post", "SCORE"),
        tensor_without_type=set_type("post", "SCORE", "TYPE_INVALID"),
        tensor_without_name=rename_tensor("post", "embedding_nd", ""),
    ),
    *broken("tensor-dims", POST, size_0=set_dims("post", "SCORE", 0), size_minus_2=set_dims("post", "SCORE", -2)),
    *broken("tensor-format", FIRST, image_format_of_bytes=set_on("preprocess", "IMAGE", format=1)),
    *broken(
        "tensor-format",
        ENGINE,
        shape_tensor=set_on("engine", "pixels_nhwc_u8", is_shape_tensor=True),
        layout_of_tensorrt=set_on("engine", "pixels_nhwc_u8", is_non_linear_format_io=True),
    ),
    *broken("reshape", ENGINE, reshape_to_fewer=reshaped("engine", "pixels_nhwc_u8", 32, 3)),
    *broken("tensor-dims", ENGINE, reshape_to_nothing=reshaped("engine", "pixels_nhwc_u8", 32, 0, 3)),
    *broken("reshape-of-a-step", ENGINE, reshape_to_a_row=reshaped("engine", "pixels_nhwc_u8", 3072)),
    *broken(
        "tensor-twice",
        ONE,
        two_inputs_of_one_name=edit("colours", lambda c: c.input.add(name="IMAGE", data_type=13, dims=[1])),
        two_outputs_of_one_name=public("colours", "SCORE", "TYPE_FP32", 2),
    ),
    *broken(
        "batch-io",
        ENGINE,
        batch_input_of_no_tensor=merge("engine", BATCH_INPUT.format("TYPE_FP32", "x")),
        batch_input_of_another_type=merge("engine", BATCH_INPUT.format("TYPE_INT64", "pixels_nhwc_u8")),
        batch_output_of_no_tensor=merge(
            "engine",
            'batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "x" source_input: "pixels_nhwc_u8" }',
        ),
    ),
    *broken("ensemble-optional", ONE, optional_image=set_on("colours", "IMAGE", optional=True)),
)
ENSEMBLES: tuple[Defect, ...] = (
    *broken("ensemble-empty", ONE, no_steps=edit("colours", lambda c: c.ensemble_scheduling.ClearField("step"))),
    *broken(
        "step-incomplete",
        ONE,
        step_without_model=on_step("colours", "engine", model_name=None),
        step_without_inputs=on_step("colours", "engine", input_map=None),
        step_without_outputs=on_step("colours", "engine", output_map=None),
    ),
    *broken("step-missing", ONE, step_that_is_not_there=on_step("colours", "engine", model_name="engine_0123456789ab")),
    *broken(
        "step-version",
        ONE,
        version_3_of_a_step=on_step("colours", "engine", model_version=3),
        version_left_out=on_step("colours", "engine", model_version=None),
    ),
    *broken("step-loop", ONE, ensemble_in_itself=on_step("colours", "engine", model_name="colours")),
    *broken(
        "map-unknown",
        ONE,
        input_that_the_step_has_not=remap("colours", "engine", "input", "pixels", "pixels_nhwc_u8"),
        output_that_the_step_has_not=all_of(
            remap("colours", "engine", "output", "logits", "logits_nc"),
            remap("colours", "engine", "output", "logits_nc", None),
        ),
    ),
    *broken("input-unmapped", ONE, input_not_mapped=remap("colours", "post", "input", "image_status", None)),
    *broken("input-unmapped", ONE, input_no_longer_optional=set_on("post", "embedding_nd", optional=False)),
    *broken("tensor-missing", ONE, tensor_of_nobody=remap("colours", "post", "input", "logits_nc", "logits")),
    *broken(
        "tensor-made-twice",
        ONE,
        tensor_of_two_steps=remap("colours", "engine", "output", "embedding_nd", "image_status"),
        step_twice=edit("colours", lambda c: c.ensemble_scheduling.step.add().CopyFrom(step_of(c, "post"))),
    ),
    *broken(
        "tensor-unused",
        ONE,
        output_for_nobody=remap("colours", "engine", "output", "embedding_nd", "embedding_nd"),
        image_for_nobody=edit("colours", lambda c: c.input.add(name="MASK", data_type=11, dims=[1])),
        logits_for_nobody=remap("colours", "post", "input", "logits_nc", None),
    ),
    *broken(
        "tensor-circle",
        ONE,
        first_step_waits_for_the_engine=remap("colours", "preprocess", "input", "IMAGE", "logits_nc"),
    ),
    *broken("output-missing", ONE, output_of_no_step=public("colours", "TOP", "TYPE_FP32", 1)),
    *broken("type-differs", ONE, other_type_in_public=set_type("colours", "SCORE", "TYPE_FP64")),
    *broken("type-differs", ONE, other_type_of_a_step=set_type("post", "logits_nc", "TYPE_FP16")),
    *broken(
        "dims-differ",
        ONE,
        other_size_in_public=set_dims("colours", "SCORE", 3),
        other_rank_in_public=set_dims("colours", "SCORE", 2, 1),
        other_size_of_a_step=set_dims("engine", "pixels_nhwc_u8", 64, 64, 3),
        other_rank_of_a_step=set_dims("post", "image_status", 1, 1),
    ),
    *broken(
        "batch-too-large",
        ONE,
        ensemble_of_larger_batches=batched("colours", 16),
        step_of_smaller_batches=batched("engine", 4),
    ),
    *broken(
        "batches-mixed", ONE, step_without_batches=batched("engine", 0), ensemble_without_batches=batched("colours", 0)
    ),
    *broken("public-and-taken", ONE, logits_in_public=public("colours", "logits_nc", "TYPE_FP32", 3)),
    *broken("public-tensors", ONE, image_sent_back=public("colours", "IMAGE", "TYPE_STRING", 1)),
    *broken(
        "queue-not-first",
        ENGINE,
        limit_on_the_engine=queue("engine", LIMIT),
        timeout_on_the_engine=queue("engine", TIMEOUT),
        clients_timeout_on_the_engine=queue("engine", "default_queue_policy { allow_timeout_override: true }"),
        limit_of_a_priority=queue(
            "engine",
            "priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 1 value { max_queue_size: 2 } }",
        ),
    ),
    *broken("queue-not-first", POST, limit_on_the_last_step=queue("post", LIMIT)),
    *broken(
        "queue-in-a-branch",
        "shades engine/config.pbtxt",
        "fleet",
        runs=5,
        limit_in_a_branch=all_of(BESIDE_EACH_OTHER, queue("shades engine", LIMIT)),
        timeout_in_a_branch=all_of(BESIDE_EACH_OTHER, queue("shades engine", TIMEOUT)),
    ),
    *broken("steps-in-parallel", "page/config.pbtxt", "fleet", runs=5, engines_beside_each_other=BESIDE_EACH_OTHER),
    *broken(
        "public-from-a-step",
        FULL,
        embedding_past_the_last_step=all_of(
            remap("colours_full", "engine", "output", "embedding_nd", "EMBEDDING"),
            remap("colours_full", "post", "input", "embedding_nd", None),
            remap("colours_full", "post", "output", "EMBEDDING", None),
        ),
    ),
    *broken(
        "embedding-missing",
        FULL,
        embedding_not_mapped=all_of(
            remap("colours_full", "post", "input", "embedding_nd", None),
            remap("colours_full", "engine", "output", "embedding_nd", None),
        ),
    ),
    *broken(
        "public-tensors",
        ONE,
        label_by_another_name=all_of(
            rename_tensor("colours", "LABEL", "TAG"), remap("colours", "post", "output", "LABEL", "TAG")
        ),
        status_left_out=all_of(
            remap("colours", "post", "output", "STATUS", None),
            edit("colours", lambda c: c.output.remove(tensor(c, "STATUS"))),
        ),
        score_of_any_size=set_dims("colours", "SCORE", -1),
    ),
)
