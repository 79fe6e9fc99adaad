"""Seeded defects of what makes a gpu lane slow, or its decoder wrong."""

from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from tests.support.lint_changes import all_of, beside, clear, edit, in_lane, instance, parameter
from tests.support.seeded_defects import Defect, broken

FIRST, DECODE, GUARD = "preprocess/config.pbtxt", "decode/config.pbtxt", "guard/config.pbtxt"
ENGINE, POST = "engine/config.pbtxt", "post/config.pbtxt"
HARDWARE = "hw_decoder_load=HARDWARE_SHARE if hardware_jpeg else 0.0,"
BACKENDS = "backends=backends,"
ASKED = "if device_id is not None and hardware_jpeg:"
CPU = pb.ModelInstanceGroup.KIND_CPU


def provider(config: Any) -> Any:
    return config.optimization.execution_accelerators.gpu_execution_accelerator[0].parameters


def graphs(config: Any) -> Any:
    return config.optimization.cuda


SPEED: tuple[Defect, ...] = (
    *broken(
        "decoder-settings",
        "decode/1/dali_graph.py",
        "gpu",
        plain_upsampling=beside("decode", "dali_graph.py", "jpeg_fancy_upsampling=True", "jpeg_fancy_upsampling=False"),
        upsampling_left_out=beside("decode", "dali_graph.py", "jpeg_fancy_upsampling=True,", ""),
        hardware_decoder_as_dali_has_it=beside("decode", "dali_graph.py", HARDWARE, ""),
        hardware_decoder_with_a_share=beside("decode", "dali_graph.py", HARDWARE, "hw_decoder_load=HARDWARE_SHARE,"),
        decoder_under_its_experimental_name=all_of(
            beside("decode", "dali_graph.py", "fn.decoders.image", "fn.experimental.decoders.image"),
            beside("decode", "dali_graph.py", HARDWARE, ""),
        ),
        decoder_under_its_older_name=all_of(
            beside("decode", "dali_graph.py", "fn.decoders.image", "fn.image_decoder"),
            beside("decode", "dali_graph.py", HARDWARE, ""),
        ),
        decoder_imported_by_name=all_of(
            beside("decode", "dali_graph.py", "fn.decoders.image", "image"),
            beside(
                "decode", "dali_graph.py", "import Any\n", "import Any\n\nfrom nvidia.dali.fn.decoders import image\n"
            ),
            beside("decode", "dali_graph.py", HARDWARE, ""),
        ),
    ),
    *broken(
        "decoder-settings",
        "preprocess/1/preprocess.py",
        "isolated",
        isolated_with_plain_upsampling=beside(
            "preprocess", "preprocess.py", '":fancy_upsampling=1"', '":fancy_upsampling=0"'
        ),
        isolated_upsampling_left_out=beside("preprocess", "preprocess.py", "options=OPTIONS,", ""),
        every_decoder_of_the_gpu=beside("preprocess", "preprocess.py", BACKENDS, ""),
        hardware_decoder_for_all=beside("preprocess", "preprocess.py", ASKED, "if device_id is not None:"),
        hardware_decoder_unless_asked=beside(
            "preprocess", "preprocess.py", ASKED, "if device_id is not None and not hardware_jpeg:"
        ),
        every_decoder_of_the_gpu_by_none=beside("preprocess", "preprocess.py", BACKENDS, "backends=None,"),
        codec_imported_by_name=all_of(
            beside("preprocess", "preprocess.py", "nvimgcodec.Decoder(", "Decoder("),
            beside(
                "preprocess",
                "preprocess.py",
                "from nvidia import nvimgcodec\n",
                "from nvidia import nvimgcodec\nfrom nvidia.nvimgcodec import Decoder\n",
            ),
            beside("preprocess", "preprocess.py", BACKENDS, ""),
        ),
    ),
    *broken(
        "pixels-unbounded",
        "guard/1/guarded_batch.py",
        "gpu",
        request_of_any_pixels=beside(
            "guard", "guarded_batch.py", "if declared_n.sum() > MAX_BATCH_PIXELS:", "if declared_n.sum() > 1 << 62:"
        ),
    ),
    *broken(
        "pixels-unbounded",
        "preprocess/1/preprocess.py",
        "isolated",
        batch_of_any_pixels=beside(
            "preprocess", "preprocess.py", "in pieces(declared_n):", "in [slice(0, len(images))]:"
        ),
    ),
    *broken("decoder-on-the-cpu", FIRST, "isolated", isolated_on_the_cpu=instance("preprocess", kind=CPU)),
    *broken("decoder-threads", FIRST, "isolated", one_thread_for_a_gpu=parameter("preprocess", "threads", "1")),
    *broken("decoder-threads", DECODE, "gpu", one_thread_for_the_dali_backend=parameter("decode", "num_threads", "1")),
    *broken(
        "delay-on-the-guard",
        GUARD,
        "gpu",
        guard_waits=edit("guard", lambda c: setattr(c.dynamic_batching, "max_queue_delay_microseconds", 500)),
        guard_prefers_batches=edit("guard", lambda c: c.dynamic_batching.preferred_batch_size.append(4)),
    ),
    *broken("post-on-the-cpu", POST, "isolated", post_without_a_stream=instance("post", kind=CPU)),
    *broken(
        "gpu-inputs", POST, "isolated", post_takes_gpu_tensors=parameter("post", "FORCE_CPU_ONLY_INPUT_TENSORS", "no")
    ),
    *broken(
        "gpu-memory",
        "lane.json",
        "isolated",
        pool_too_small=in_lane(cuda_pool_bytes=1 << 20),
        pool_left_to_triton=in_lane(cuda_pool_bytes=None),
        pinned_pool_left_out=in_lane(pinned_pool_bytes=None),
        pool_on_another_gpu_than_the_steps=in_lane(gpus=[3]),
        more_engines_than_the_pool_is_for=instance("engine", count=400),
    ),
    *broken("gpus-differ", "colours/config.pbtxt", "isolated", engine_on_another_gpu=instance("engine", gpus=[1])),
    *broken(
        "cuda-graphs",
        ENGINE,
        "isolated",
        graphs_of_two_sizes=edit("engine", lambda c: graphs(c).ClearField("graph_spec")),
        graphs_that_are_off=edit("engine", lambda c: setattr(graphs(c), "graphs", False)),
        graph_of_too_large_a_batch=edit("engine", lambda c: setattr(graphs(c).graph_spec[-1], "batch_size", 64)),
        graph_of_another_size=edit("engine", lambda c: graphs(c).graph_spec[0].input["pixels_nhwc_u8"].dim.append(3)),
        graph_of_no_input=edit("engine", lambda c: graphs(c).graph_spec[0].ClearField("input")),
    ),
    *broken("warmup-missing", DECODE, "gpu", decoder_that_stays_cold=clear("decode", "model_warmup")),
    *broken("warmup-missing", POST, "isolated", post_that_stays_cold=clear("post", "model_warmup")),
    *broken(
        "warmup-missing",
        FIRST,
        "isolated",
        decoder_warmed_by_zeros=edit(
            "preprocess", lambda c: setattr(c.model_warmup[0].inputs["IMAGE"], "zero_data", True)
        ),
    ),
    *broken("parameter-missing", FIRST, "isolated", isolated_without_threads=parameter("preprocess", "threads", None)),
    *broken("fallback-unsaid", "lane.json", "fallback", fallback_in_silence=in_lane(fallback=None)),
    *broken("fallback-unsaid", "lane.json", "isolated", fallback_beside_a_plan=in_lane(fallback={"colours": "a"})),
    *broken("plan-on-the-cpu", ENGINE, "fallback", fallback_on_the_cpu=instance("engine", kind=CPU)),
    *broken(
        "engine-cache",
        ENGINE,
        "fallback",
        cached_engines_without_a_prefix=edit("engine", lambda c: provider(c).pop("trt_engine_cache_prefix")),
        cached_engines_of_another_graph=edit(
            "engine", lambda c: provider(c).update({"trt_engine_cache_prefix": f"slipway-{'0' * 64}"})
        ),
    ),
)
