"""Seeded defects of single configurations."""

from tritonclient.grpc import model_config_pb2 as pb

from tests.support.lint_changes import (
    all_of,
    append,
    batched,
    clear,
    edit,
    instance,
    merge,
    parameter,
    put,
    queue,
    remove,
    swap,
    transcode,
    warmup,
)
from tests.support.seeded_defects import ENGINE, FIRST, ONE, POST, Defect, broken

ENVIRONMENT = 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }'

CONFIGURATIONS: tuple[Defect, ...] = (
    *broken("config-missing", POST, no_configuration=remove("post", "config.pbtxt")),
    *broken(
        "config-syntax",
        POST,
        brace_missing=append("post", "parameters {"),
        text_for_a_number=swap("post", "max_batch_size: 8", 'max_batch_size: "8"'),
        unknown_word_for_a_type=swap("post", "TYPE_INT32", "TYPE_INTEGER"),
        field_twice=append("post", "max_batch_size: 8"),
        configuration_of_junk_bytes=put("post", "config.pbtxt", b"\x00\x01\x02 junk"),
        byte_order_mark=transcode("post", "utf-8-sig"),
    ),
    *broken("config-syntax", ENGINE, two_schedulers=append("engine", "sequence_batching { }")),
    *broken("config-unknown-field", POST, misspelt_field=append("post", "max_batch_sise: 8")),
    *broken("config-unknown-field", POST, field_of_a_later_release=append("post", "model_metrics { }")),
    *broken(
        "config-unknown-field",
        ONE,
        max_inflight_requests=swap(
            "colours", "ensemble_scheduling {", "ensemble_scheduling {\n max_inflight_requests: 4"
        ),
    ),
    *broken("config-not-utf8", POST, latin_1_in_a_comment=append("post", "# caf\udce9")),
    *broken("config-too-large", POST, two_megabytes_of_comment=append("post", "# " + "x" * (2 << 20))),
    *broken(
        "config-not-a-file",
        POST,
        folder_for_a_configuration=all_of(remove("post", "config.pbtxt"), put("post", "config.pbtxt/x", b"")),
    ),
    *broken("name-differs", POST, another_name=edit("post", lambda config: setattr(config, "name", "pots"))),
    *broken(
        "backend-missing",
        ONE,
        ensemble_without_anything=all_of(clear("colours", "platform"), clear("colours", "ensemble_scheduling")),
    ),
    *broken(
        "backend-unknown",
        POST,
        misspelt_backend=merge("post", 'backend: "pyhton"'),
        backend_by_path=merge("post", 'backend: "../python"'),
    ),
    *broken(
        "backend-unknown",
        ENGINE,
        backend_of_another_lane=merge("engine", 'backend: "onnxruntime"'),
        backend_that_triton_infers=clear("engine", "backend"),
    ),
    *broken(
        "ensemble-platform",
        ONE,
        misspelt_platform=merge("colours", 'platform: "ensembel"'),
        ensemble_without_platform=clear("colours", "platform"),
        ensemble_with_a_backend=merge("colours", 'backend: "python"'),
        ensemble_as_a_backend=all_of(clear("colours", "platform"), merge("colours", 'backend: "ensemble"')),
        ensemble_without_scheduling=clear("colours", "ensemble_scheduling"),
    ),
    *broken(
        "ensemble-settings",
        ONE,
        file_of_an_ensemble=merge("colours", 'default_model_filename: "model.py"'),
        instances_of_an_ensemble=merge("colours", "instance_group { count: 2 kind: KIND_CPU }"),
        optimisation_of_an_ensemble=merge("colours", "optimization { priority: PRIORITY_MAX }"),
        warmup_of_an_ensemble=warmup("colours", "IMAGE", "TYPE_STRING", "1"),
    ),
    *broken(
        "gpu-on-the-cpu-lane",
        POST,
        instance_on_a_gpu=instance("post", kind=pb.ModelInstanceGroup.KIND_GPU),
        instance_on_gpu_0=instance("post", kind=pb.ModelInstanceGroup.KIND_GPU, gpus=[0]),
    ),
    *broken("instance-gpus", POST, gpus_for_a_cpu_instance=instance("post", gpus=[0])),
    *broken("instance-profile", POST, profile_without_tensorrt=instance("post", profile=["0"])),
    *broken(
        "instance-count",
        POST,
        no_instances=instance("post", count=0),
        fewer_than_no_instances=instance("post", count=-1),
    ),
    *broken("instance-passive", POST, passive_instance=instance("post", passive=True)),
    *broken("batch-size", POST, negative_batch=batched("post", -1)),
    *broken(
        "batch-preferred",
        POST,
        preferred_batch_too_large=queue("post", "preferred_batch_size: 16"),
        preferred_batch_of_nothing=queue("post", "preferred_batch_size: 0"),
    ),
    *broken(
        "priority-levels",
        FIRST,
        no_default_priority=queue("preprocess", "priority_levels: 2"),
        default_priority_too_high=queue("preprocess", "priority_levels: 2 default_priority_level: 3"),
        policy_of_no_priority=queue(
            "preprocess",
            "priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 3 value { max_queue_size: 1 } }",
        ),
    ),
    *broken(
        "ordering",
        FIRST,
        order_of_delayed_requests=queue(
            "preprocess",
            "preserve_ordering: true default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 9 }",
        ),
    ),
    *broken("batching-missing", FIRST, no_batching_of_the_first_step=clear("preprocess", "dynamic_batching")),
    *broken("batching-missing", ENGINE, no_batching_of_the_engine=clear("engine", "dynamic_batching")),
    *broken(
        "delay-over-timeout",
        FIRST,
        held_back_until_refused=queue(
            "preprocess",
            "max_queue_delay_microseconds: 300000 default_queue_policy { default_timeout_microseconds: 100000 }",
        ),
    ),
    *broken(
        "delay-too-long", FIRST, held_back_for_five_seconds=queue("preprocess", "max_queue_delay_microseconds: 5000000")
    ),
    *broken("response-cache", POST, cache_of_a_step=merge("post", "response_cache { enable: true }")),
    *broken("response-cache", ONE, cache_of_an_ensemble=merge("colours", "response_cache { enable: true }")),
    *broken(
        "sequence-batching",
        ENGINE,
        sequences=all_of(clear("engine", "dynamic_batching"), merge("engine", "sequence_batching { }")),
    ),
    *broken("decoupled", ENGINE, decoupled_step=merge("engine", "model_transaction_policy { decoupled: true }")),
    *broken("execution-environment", ENGINE, environment_that_is_not_there=merge("engine", ENVIRONMENT)),
    *broken("agents", POST, repository_agent=merge("post", 'model_repository_agents { agents { name: "checksum" } }')),
    *broken("metric-tags", POST, tag_with_a_space=merge("post", 'metric_tags { key: "a b" value: "x" }')),
    *broken(
        "no-effect",
        POST,
        tensorrt_for_python=merge(
            "post", 'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } }'
        ),
        cuda_graphs_for_python=merge("post", "optimization { cuda { graphs: true } }"),
        plan_of_a_python_step=merge("post", 'cc_model_filenames { key: "9.0" value: "other.py" }'),
        host_policy=instance("post", host_policy="numa_7"),
    ),
    *broken("no-effect", ONE, decoupled_ensemble=merge("colours", "model_transaction_policy { decoupled: true }")),
    *broken(
        "warmup",
        ENGINE,
        warmup_of_no_input=warmup("engine", "pixels", "TYPE_UINT8", "32, 32, 3"),
        warmup_of_another_type=warmup("engine", "pixels_nhwc_u8", "TYPE_INT8", "32, 32, 3"),
        warmup_of_another_size=warmup("engine", "pixels_nhwc_u8", "TYPE_UINT8", "64, 64, 3"),
        warmup_of_too_many=warmup("engine", "pixels_nhwc_u8", "TYPE_UINT8", "32, 32, 3", batch_size=99),
        warmup_from_no_file=warmup("engine", "pixels_nhwc_u8", "TYPE_UINT8", "32, 32, 3", data='input_data_file: "x"'),
    ),
    *broken("warmup", POST, warmup_of_one_input_of_two=warmup("post", "logits_nc", "TYPE_FP32", "3")),
    *broken(
        "parameter-missing",
        ENGINE,
        threads_missing=parameter("engine", "threads", None),
        arithmetic_missing=parameter("engine", "arithmetic", None),
    ),
    *broken(
        "parameter-number",
        ENGINE,
        threads_in_words=parameter("engine", "threads", "two"),
        threads_and_a_half=parameter("engine", "threads", "1.5"),
    ),
    *broken("parameter-threads", ENGINE, no_threads=parameter("engine", "threads", "0")),
)
