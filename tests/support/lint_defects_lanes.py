"""Seeded defects of what build/assemble.py promises, and of the gpu lane."""

import json
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from tests.support.lint_changes import (
    Change,
    all_of,
    append,
    at_root,
    beside,
    copied,
    edit,
    edit_text,
    flipped,
    in_lane,
    instance,
    merge,
    model,
    only_files,
    put,
    remove,
    set_dims,
    set_on,
)
from tests.support.seeded_defects import Defect, broken

OTHER_BUNDLE = f"{'0' * 64}\n"
OURS: tuple[Defect, ...] = (
    *broken("manifest-missing", "manifest.json", seals=False, manifest_gone=lambda r: (r / "manifest.json").unlink()),
    *broken(
        "manifest-broken",
        "manifest.json",
        seals=False,
        manifest_edited=lambda r: edit_text(r / "manifest.json", '"cpu"', '"gpu"'),
    ),
    *broken("file-changed", "engine/1/model.onnx", seals=False, graph_changed=flipped("engine", "1/model.onnx")),
    *broken(
        "file-changed",
        "post/1/decision.json",
        seals=False,
        decision_changed=beside("post", "decision.json", "1.0", "2.0"),
    ),
    *broken("file-added", "colours/notes.txt", seals=False, file_beside=put("colours", "notes.txt", "todo")),
    *broken("file-missing", "colours/1/bundle.txt", seals=False, file_gone=remove("colours", "1/bundle.txt")),
    *broken(
        "lane-unreadable",
        "lane.json",
        lane_of_junk=at_root("lane.json", "{"),
        lane_without_a_field=at_root("lane.json", "{}"),
    ),
    *broken("lane-empty", "lane.json", lane_of_nothing=in_lane(classifiers={})),
    *broken("repository-empty", ".", no_models=only_files),
    *broken(
        "ensemble-missing", "shades", ensemble_promised=in_lane(classifiers={"colours": "0" * 64, "shades": "0" * 64})
    ),
    *broken("ensemble-unnamed", "second/config.pbtxt", ensemble_of_nobody=copied("colours", "second")),
    *broken("step-unused", "post_0123456789ab/config.pbtxt", step_of_nobody=copied("post", "post_0123456789ab")),
    *broken(
        "shared-memory",
        "lane.json",
        batch_larger_than_shared_memory=all_of(
            in_lane(shm_default_bytes=1 << 20),
            *(
                merge(which, "max_batch_size: 512")
                for which in ("preprocess", "engine", "post", "colours", "colours_full")
            ),
        ),
    ),
    *broken("bundle-differs", "post/1/bundle.txt", step_of_another_bundle=put("post", "1/bundle.txt", OTHER_BUNDLE)),
    *broken(
        "bundle-differs",
        "colours/1/bundle.txt",
        ensemble_of_another_bundle=put("colours", "1/bundle.txt", OTHER_BUNDLE),
    ),
    *broken(
        "files-differ",
        "post/1/decision.json",
        more_answers_than_written=beside("post", "decision.json", '"top_k": 2', '"top_k": 3'),
        fewer_answers_than_written=beside("post", "decision.json", '"top_k": 2', '"top_k": 1'),
    ),
    *broken(
        "files-differ", "post/1/labels.txt", label_of_the_step_too_few=put("post", "1/labels.txt", "blue\ngreen\n")
    ),
    *broken(
        "labels-text", "post/1/labels.txt", label_of_the_step_twice=put("post", "1/labels.txt", "blue\nred\nred\n")
    ),
    *broken(
        "files-differ",
        "preprocess/1/preprocess.json",
        pixels_of_another_size=beside("preprocess", "preprocess.json", '"input_width": 32', '"input_width": 64'),
    ),
    *broken(
        "files-differ",
        "engine/1/engine.json",
        graph_of_another_engine=flipped("engine", "1/model.onnx"),
        engine_of_another_arithmetic=beside("engine", "engine.json", '"f32"', '"bf16"'),
        engine_of_another_lane=beside("engine", "engine.json", '"openvino"', '"tensorrt"'),
        embedding_of_another_size=all_of(
            set_dims("engine", "embedding_nd", 4),
            set_dims("post", "embedding_nd", 4),
            set_dims("colours_full", "EMBEDDING", 4),
            set_dims("post", "EMBEDDING", 4),
        ),
    ),
)


PIPELINE, DECODE, PLAN = "decode/1/dali.py", "decode/config.pbtxt", "engine/config.pbtxt"


def in_pipeline(old: str, new: str) -> Change:
    return beside("decode", "dali.py", old, new)


def plan_key(key: str, file: str = "model_sm90.plan") -> Change:
    def changed(config: object) -> None:
        config.cc_model_filenames.clear()  # type: ignore[attr-defined]
        config.cc_model_filenames[key] = file  # type: ignore[attr-defined]

    return edit("engine", changed)


def plan_says(**changes: object) -> Change:
    """Facts of the plan itself in `engine_sm90.json`; None: left out."""

    def changed(repository: Path) -> None:
        path = model(repository, "engine") / "1/engine_sm90.json"
        text = json.loads(path.read_text())
        path.write_text(json.dumps(text | {"plan": text["plan"] | changes}))

    return changed


GPU: tuple[Defect, ...] = (
    *broken("ragged-missing", DECODE, "gpu", not_ragged=set_on("decode", "encoded", allow_ragged_batch=False)),
    *broken("dali-missing", PIPELINE, "gpu", no_pipeline=remove("decode", "1/dali.py")),
    *broken(
        "dali-autoserialize",
        PIPELINE,
        "gpu",
        pipeline_not_marked=in_pipeline("@autoserialize  #", "#"),
        two_pipelines=append(
            "decode",
            "\n\n@autoserialize\n@pipeline_def(batch_size=8)\ndef another():\n    return ()\n",
            file="1/dali.py",
        ),
        pipeline_marked_below=all_of(
            in_pipeline("@autoserialize  #", "#"), in_pipeline("def pipeline()", "@autoserialize\ndef pipeline()")
        ),
    ),
    *broken(
        "dali-batch-size",
        PIPELINE,
        "gpu",
        pipeline_without_a_batch=in_pipeline('    batch_size=SIZES["batch_size"],\n', ""),
        pipeline_of_smaller_batches=beside("decode", "pipeline.json", '"batch_size": 32', '"batch_size": 4'),
    ),
    *broken(
        "dali-outputs",
        PIPELINE,
        "gpu",
        pipeline_without_types=in_pipeline("    output_dtype=[types.UINT8],", "   "),
        pipeline_without_sizes=in_pipeline("    output_ndim=[3],\n", ""),
        pipeline_of_another_type=in_pipeline("[types.UINT8]", "[types.FLOAT]"),
        pipeline_of_another_rank=in_pipeline("output_ndim=[3]", "output_ndim=[4]"),
    ),
    *broken(
        "dali-device",
        PIPELINE,
        "gpu",
        device_on_the_cpu=edit(
            "decode", lambda c: setattr(c.instance_group[0], "kind", pb.ModelInstanceGroup.KIND_CPU)
        ),
    ),
    *broken(
        "dali-inputs",
        PIPELINE,
        "gpu",
        pipeline_of_another_input=in_pipeline('name="encoded"', 'name="jpegs"'),
        pipeline_reads_another_type=in_pipeline("dtype=types.UINT8, ndim", "dtype=types.INT8, ndim"),
    ),
    *broken("plan-on-the-cpu", PLAN, "gpu", plan_on_the_cpu=instance("engine", kind=pb.ModelInstanceGroup.KIND_CPU)),
    *broken(
        "plan-missing", "engine/1/model_sm89.plan", "gpu", plan_that_is_not_there=plan_key("8.9", "model_sm89.plan")
    ),
    *broken(
        "plan-capability",
        PLAN,
        "gpu",
        capability_of_the_file_name=plan_key("sm90"),
        capability_without_a_point=plan_key("90"),
    ),
    *broken(
        "plan-facts",
        "engine/1/engine_sm90.json",
        "gpu",
        nothing_written_of_the_plan=remove("engine", "1/engine_sm90.json"),
        plan_for_another_gpu=plan_key("8.9"),
        plan_of_smaller_batches=beside("engine", "engine_sm90.json", "    32\n", "    4\n"),
        plan_of_another_tensorrt=in_lane(tensorrt="11.2.1.2"),
        plan_of_another_decoder=beside("engine", "engine_sm90.json", '"2.2.0"', '"2.4.0"'),
        plan_of_another_codec=beside("engine", "engine_sm90.json", '"0.8.0.22"', '"0.9.0.20"'),
        plan_that_names_no_card=plan_says(card=None),
        plan_that_names_no_decoder=plan_says(dali=None),
        plan_that_names_no_codec=plan_says(nvimgcodec=None),
        lane_that_names_no_tensorrt=in_lane(tensorrt=None),
        lane_that_names_no_decoder=in_lane(dali=None),
        lane_that_names_no_codec=in_lane(nvimgcodec=None),
        plan_without_the_second_profile=instance("engine", profile=["0", "1"]),
        second_profile_that_is_never_used=beside(
            "engine", "engine_sm90.json", '"single_image_profile": false', '"single_image_profile": true'
        ),
        first_profile_twice=all_of(
            beside("engine", "engine_sm90.json", '"single_image_profile": false', '"single_image_profile": true'),
            instance("engine", profile=["0", "0"]),
        ),
    ),
    *broken(
        "lane-release",
        "lane.json",
        "gpu",
        release_whose_dali_refuses_the_step=in_lane(release="26.06"),
        release_that_does_not_exist=in_lane(release="26.13"),
        dali_that_refuses_the_step=in_lane(dali="2.1.1"),
    ),
    *broken("leaves-the-model", PLAN, "gpu", plan_outside=plan_key("9.0", "../plans/model_sm90.plan")),
)
