"""All rules: the harm of breaking each, and the reaction of tritonserver 2.51.

The reactions are those that python -m benchmarks.studies.lint_corpus observed; docs/lint.md is this table.
"""

from dataclasses import dataclass
from typing import Literal

Reaction = Literal["refuses", "takes", "hangs", "dies", "unseen"]
"""The server reports an error and does not load the model; loads it in silence; never becomes ready; or ends while it
loads. `unseen` was not tried, since that needs a host with a GPU."""


@dataclass(frozen=True)
class Rule:
    """A condition that a repository must meet."""

    server: Reaction
    goes_wrong: str
    """The harm if the condition is not met."""


def _rules(server: Reaction, **rules: str) -> dict[str, Rule]:
    return {name.replace("_", "-"): Rule(server, goes_wrong) for name, goes_wrong in rules.items()}


_CONFIGURATION = {
    **_rules(
        "refuses",
        config_missing="Triton treats every folder as a model, and this one has no configuration",
        config_syntax="the text does not parse, and Triton does not say where",
        config_unknown_field="a field that is misspelt, or of a later release",
        name_differs="the name in the configuration is not that of the folder",
        backend_missing="nothing says which backend loads the model",
        backend_unknown="a backend that the lane's server does not have",
        ensemble_platform='`platform: "ensemble"` needs steps, and excludes a backend',
        ensemble_settings="instances, optimisation, warm-up or a file of an ensemble, which has no process",
        gpu_on_the_cpu_lane="an instance on a GPU, where there is none",
        instance_gpus="GPUs listed for an instance that is not on one",
        instance_profile="TensorRT's optimisation profiles for another backend",
        batch_size="a negative `max_batch_size`",
        batch_preferred="a preferred batch size below 1 or above `max_batch_size`",
        priority_levels="a priority level that does not exist",
        ordering="`preserve_ordering` with priorities or delayed requests, which break the order",
        decoupled="a step with any number of answers in an ensemble whose tensors meet again",
        execution_environment="an environment that is missing, or that delays each start",
        agents="a repository agent that the server does not have",
        warmup="a warm-up request that does not fit the model",
    ),
    **_rules(
        "takes",
        config_not_utf8="names that cannot be sent to clients, since protobuf's strings are UTF-8",
        config_too_large="a configuration over a megabyte, which the lint does not read",
        name_characters="a name that URLs, metrics and shells spell differently",
        instance_count="no instances, or a negative number: Triton uses one",
        instance_passive="no instance answers, and the first request ends the server",
        batching_missing="every request runs alone, however many wait",
        delay_over_timeout="every lone request is rejected",
        delay_too_long="lone requests wait longer than their clients do",
        response_cache="a cache that leaks memory, or that the server does not have",
        sequence_batching="requests without a sequence id fail, and so do batches",
        no_effect="the setting is never read",
    ),
    **_rules(
        "dies",
        config_not_a_file="the server ends while it reads a folder as a file",
        metric_tags="the server ends over an invalid metric label",
    ),
}
_FILES = {
    **_rules(
        "refuses",
        version_missing="no version folder, or only invalid ones such as `01` and `abc`",
        version_policy="the policy serves a version that does not exist, or none",
        labels_missing="the label file is missing",
        python_syntax="a file of the step is not valid Python",
        python_class="no `TritonPythonModel`",
        python_import="an imported module is missing beside the file",
        step_file_missing="a file that the step reads at the start is missing",
        parameter_missing="a parameter that the step reads at the start is missing",
        parameter_number="a parameter that is not a number",
        file_broken="a JSON file that the step cannot use",
    ),
    **_rules(
        "hangs",
        version_name="`1.0`, `1a` or `-1` is read as version 1 or -1, whose files do not exist",
        model_file_missing="the Python backend waits for a `model.py` that never comes, and the server is never ready",
    ),
    **_rules(
        "takes",
        repository_empty="no model at all: the server is ready, and serves nothing",
        version_hidden="an older version is present but never served",
        leaves_the_model="a file outside the model, which checks and copies miss",
        symbolic_link="the served content can change without the repository",
        python_execute="the step loads, and fails every request",
        parameter_threads="no threads: DALI refuses, and OpenVINO takes all processors",
        labels_on_bytes="a request with `class_count` for that output ends the server",
        labels_count="`class_count` answers numbers, or the labels of other classes",
        labels_text="labels that are empty, equal for two classes, or end with a carriage return",
        labels_differ="LABEL and `class_count` name different classes",
    ),
}
_FILES |= _rules("unseen", unreadable="a file or folder that the server's user may not read")
_TENSORS = {
    **_rules(
        "refuses",
        tensor_incomplete="a tensor without name, type or size",
        tensor_dims="a size of 0, or under -1",
        tensor_format="an image format, shape tensor or layout that the backend does not support",
        reshape="dims and reshape hold different numbers of elements",
        batch_io="a batch input or output with an unknown kind, type or tensor",
        ensemble_empty="an ensemble without steps",
        step_incomplete="a step without a model, inputs or outputs",
        step_missing="a step that is not in the repository",
        step_version="a version of a step that is not served; left out, it is 0",
        step_loop="an ensemble that is a step of itself",
        map_unknown="a step has no such input or output",
        input_unmapped="an input of a step has no tensor mapped to it",
        tensor_missing="a tensor that no step produces",
        tensor_made_twice="a tensor that two steps produce",
        tensor_unused="a tensor that is computed or sent but not used",
        tensor_circle="steps that wait for each other",
        output_missing="an output that no step produces",
        type_differs="a tensor is produced with one type and read with another",
        dims_differ="a tensor is produced with one size and read with another",
        batch_too_large="the ensemble takes larger batches than its step",
    ),
    **_rules(
        "takes",
        tensor_twice="two inputs of one name: requests fail, since one is always missing",
        reshape_of_a_step="the step's code gets another shape than it was written for",
        batches_mixed="every request fails at the step that takes no batch, or one image more than it should",
        public_and_taken="a request for some of the outputs fails with a deadlock",
        ensemble_optional="a request without that input fails, or hangs",
        queue_in_a_branch="a rejection while another step runs: requests hang for ever",
        queue_not_first="decoded images are discarded under load",
        queue_limit="under load, gRPC clients that give up end the server (switched off, docs/adr/0024)",
    ),
}
_OURS = {
    **_rules(
        "takes",
        manifest_missing="the files cannot be checked against the assembled ones",
        manifest_broken="the manifest itself was changed, so it proves nothing",
        file_changed="the file that answers is not the one that was evaluated",
        file_added="a file that was not assembled",
        file_missing="an assembled file is missing",
        lane_unreadable="the file that says what the repository serves is unreadable",
        lane_empty="nothing is served",
        ensemble_missing="a classifier of lane.json is missing",
        ensemble_unnamed="an ensemble that lane.json does not name, so it is never probed",
        step_unused="a step takes memory, and no ensemble uses it",
        public_tensors="clients ask for a tensor that is missing, or has another type",
        public_from_a_step="a refused image gets the numbers of the placeholder",
        steps_in_parallel="a client that gives up can end the server",
        embedding_missing="every request for EMBEDDING fails",
        group_inputs="every request for a head of the group fails",
        shared_memory="shared memory grows under load, which costs latency",
        head_left_out="the server leaves the head out: its requests fail, and the others of its group answer",
        bundle_differs="BUNDLE does not name the bundle that answers",
        files_differ="two files of one step contradict each other: wrong answers, or none",
    ),
}
_GPU = {
    **_rules(
        "unseen",
        ragged_missing="requests of different sizes never share a batch",
        plan_missing="a named plan is missing",
        plan_capability="a key that no GPU has, so its plan is never used",
        plan_on_the_cpu="a TensorRT plan, or the engine instead of one, for an instance without a GPU",
        plan_facts="a plan of another GPU, compiler, decoder or batch than the repository says",
        fallback_unsaid="a classifier is served without a plan, and nothing says so",
        engine_cache="ONNX Runtime takes the cached engine of another network of the same architecture",
        lane_release="a release whose DALI refuses the decode step, or of which nothing is known",
        decoder_settings="a decoder that trusts the GPU's hardware decoder, or whose pixels are unlike a CPU's",
        pixels_unbounded="a few images that declare many pixels take all the memory of the decoder",
        decoder_on_the_cpu="the GPU waits for images that the CPU decodes",
        decoder_threads="one thread decodes Huffman codes, and the GPU waits",
        delay_on_the_guard="requests wait at a step that gains nothing from a batch",
        post_on_the_cpu="its copies wait for the decoder and the engines, and they for it",
        gpu_inputs="a Python step gets tensors on the GPU, and fails every request",
        gpu_memory="tensors between the steps go through host memory, with one warning",
        gpus_differ="every batch moves from one GPU to another",
        cuda_graphs="graphs that the TensorRT backend refuses, or that most batches do not have",
        warmup_missing="the first requests wait, or the decode step does not load",
        dali_missing="the DALI backend has nothing to run",
        dali_autoserialize="no pipeline or several are marked, or not above `@pipeline_def`",
        dali_batch_size="the pipeline takes smaller batches than the configuration",
        dali_device="a device for a pipeline that runs on the CPU",
        dali_outputs="types or sizes that differ from config.pbtxt are loaded in silence",
        dali_inputs="the pipeline reads an input that the configuration does not have",
    ),
}
GROUPS = {
    "Configurations": _CONFIGURATION,
    "Folders and files": _FILES,
    "Tensors and ensembles": _TENSORS,
    "Repositories that slipway assemble wrote": _OURS,
    "DALI and TensorRT on the gpu lane": _GPU,
}
RULES: dict[str, Rule] = {name: rule for group in GROUPS.values() for name, rule in group.items()}
