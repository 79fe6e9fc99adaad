"""Every rule: what goes wrong where it is broken, and what tritonserver 2.51 does about it.

The words for the server are what python -m benchmarks.studies.lint_corpus saw it do; docs/lint.md is this table.
"""

from dataclasses import dataclass
from typing import Literal

Server = Literal["refuses", "takes", "hangs", "dies", "unseen"]
"""It says so and does not load it; loads it without a word; never becomes ready; ends while it loads; or it was not
tried, since only a host with a GPU could."""


@dataclass(frozen=True)
class Rule:
    """One thing that must hold."""

    server: Server
    goes_wrong: str


def _rules(server: Server, **rules: str) -> dict[str, Rule]:
    return {name.replace("_", "-"): Rule(server, goes_wrong) for name, goes_wrong in rules.items()}


_CONFIGURATION = {
    **_rules(
        "refuses",
        config_missing="Triton takes every folder for a model, and one without a configuration is none",
        config_syntax="the text does not parse, and Triton does not say where",
        config_unknown_field="a field that is misspelt, or of a later release",
        name_differs="the name in the configuration is not that of the folder",
        backend_missing="nothing says which backend loads the model",
        backend_unknown="a backend that the lane's server has not",
        ensemble_platform='`platform: "ensemble"` and steps go together, and with no backend',
        ensemble_settings="instances, optimisation, warm-up or a file of an ensemble, which has no process",
        gpu_on_the_cpu_lane="an instance on a GPU, where there is none",
        instance_gpus="GPUs listed for an instance that is not on one",
        instance_profile="TensorRT's optimisation profiles for another backend",
        batch_size="a negative largest batch",
        batch_preferred="a preferred batch that is larger than the largest, or none",
        priority_levels="a priority level that there is not",
        ordering="an order to keep, and priorities or put-off requests that break it",
        decoupled="a step with any number of answers in an ensemble whose tensors meet again",
        execution_environment="an environment to unpack that is not there, or that delays each start",
        agents="a repository agent that the server has not",
        warmup="a warm-up request that does not fit the model",
    ),
    **_rules(
        "takes",
        config_not_utf8="names that no client can be told, since protobuf's strings are UTF-8",
        config_too_large="a configuration over a megabyte, which the lint does not read",
        name_characters="a name that addresses, metrics and shells spell in several ways",
        instance_count="no instances, or fewer: Triton makes it one",
        instance_passive="nobody answers, and the first request ends the server",
        batching_missing="every request is run alone, however many wait",
        delay_over_timeout="lone requests are refused, each of them",
        delay_too_long="lone requests wait longer than their clients do",
        response_cache="a cache that loses memory, or that the server has not",
        sequence_batching="requests without a sequence id fail, and so do batches",
        no_effect="somebody counts on a setting that nobody reads",
    ),
    **_rules(
        "dies",
        config_not_a_file="the server ends while it reads a folder as a file",
        metric_tags="the server ends over a metric's label that is none",
    ),
}
_FILES = {
    **_rules(
        "refuses",
        version_missing="no folder that is a version, or only ones such as `01` and `abc`",
        version_policy="the policy serves a version that is not there, or none",
        labels_missing="a file of labels that is not there",
        python_syntax="a file of the step is no Python",
        python_class="no `TritonPythonModel`",
        python_import="a module that was beside the file is not",
        step_file_missing="a file that the step reads when it starts",
        parameter_missing="a parameter that the step reads when it starts",
        parameter_number="a parameter that is no number",
        file_broken="a JSON file that the step cannot use",
    ),
    **_rules(
        "hangs",
        version_name="`1.0`, `1a` or `-1` is taken for version 1 or -1, whose files are not there",
        model_file_missing="the Python backend waits for a `model.py` that never comes, and the server is never ready",
    ),
    **_rules(
        "takes",
        repository_empty="no model at all: the server is ready, and serves nothing",
        version_hidden="an older version lies there and is not served",
        leaves_the_model="a file outside the model, which no check and no copy takes along",
        symbolic_link="what is served changes without the repository",
        python_execute="the step loads, and fails every request",
        parameter_threads="no threads: DALI refuses, and OpenVINO takes all processors",
        labels_on_bytes="a request with `class_count` for that output ends the server",
        labels_count="`class_count` answers numbers, or the labels of other classes",
        labels_text="answers with labels that are empty, the same for two classes, or end in a carriage return",
        labels_differ="LABEL and `class_count` name different classes",
    ),
}
_FILES |= _rules("unseen", unreadable="a file or folder that whoever serves may not read")
_TENSORS = {
    **_rules(
        "refuses",
        tensor_incomplete="a tensor without name, type or size",
        tensor_dims="a size of 0, or under -1",
        tensor_format="an image format, shape tensor or layout that the backend has not",
        reshape="dims and reshape hold different numbers of elements",
        batch_io="a batch input or output of a kind, type or tensor that there is not",
        ensemble_empty="an ensemble without steps",
        step_incomplete="a step without a model, inputs or outputs",
        step_missing="a step that is not in the repository",
        step_version="a version of a step that is not served; left out, it is 0",
        step_loop="an ensemble that is a step of itself",
        map_unknown="a step has no such input or output",
        input_unmapped="a step's input that nothing is mapped to",
        tensor_missing="a tensor that nobody makes",
        tensor_made_twice="a tensor that two make",
        tensor_unused="a tensor that is computed or sent for nobody",
        tensor_circle="steps that wait for each other",
        output_missing="an output that no step makes",
        type_differs="a tensor is given as one type and taken as another",
        dims_differ="a tensor is given in one size and taken in another",
        batch_too_large="the ensemble takes larger batches than its step",
    ),
    **_rules(
        "takes",
        tensor_twice="two inputs of one name: requests fail, since one is always missing",
        reshape_of_a_step="the step's code gets another shape than it was written for",
        batches_mixed="every request fails at the step that takes no batch, or one image more than it should",
        public_and_taken="a request for some of the outputs fails with a deadlock",
        ensemble_optional="a request without that input fails, or hangs",
        queue_in_a_branch="a refusal while another step runs: requests hang for good",
        queue_not_first="decoded images are thrown away under load",
        queue_limit="under load, gRPC clients that give up end the server (switched off, docs/adr/0024)",
    ),
}
_OURS = {
    **_rules(
        "takes",
        manifest_missing="nobody can tell whether the files are those that were assembled",
        manifest_broken="the manifest itself was changed, so that it proves nothing",
        file_changed="another file than the one that was evaluated answers",
        file_added="a file that nobody knows of",
        file_missing="a file that was assembled is gone",
        lane_unreadable="nobody knows what the repository is to serve",
        lane_empty="nothing is served",
        ensemble_missing="a classifier that was promised is not there",
        ensemble_unnamed="an ensemble that no check asks for an answer",
        step_unused="a step takes memory, and nobody asks it",
        public_tensors="clients ask for a tensor that is not there, or read another type",
        public_from_a_step="the placeholder's numbers are handed out for a refused image",
        steps_in_parallel="a client that gives up can end the server",
        embedding_missing="every request for EMBEDDING fails",
        shared_memory="shared memory grows under load, which costs latency",
        bundle_differs="BUNDLE names another bundle than the one that answers",
        files_differ="two files of one step contradict each other: wrong answers, or none",
    ),
}
_GPU = {
    **_rules(
        "unseen",
        ragged_missing="requests of different sizes never share a batch",
        plan_missing="no plan for a GPU that is named",
        plan_capability="a key that no GPU has, so that its plan is never taken",
        plan_on_the_cpu="a TensorRT plan for an instance without a GPU",
        plan_facts="a plan of another GPU, compiler or batch than the configuration says",
        dali_missing="the DALI backend has nothing to run",
        dali_autoserialize="none or several pipelines are marked, or not above `@pipeline_def`",
        dali_batch_size="the pipeline takes smaller batches than the configuration",
        dali_device="a device for a pipeline that runs on the CPU",
        dali_outputs="other types or sizes than config.pbtxt load without a word",
        dali_inputs="the pipeline reads another input than the configuration has",
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
