"""The doctor on whole repositories: the example, and copies of it with defects, each named by a line of its own."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import openvino
import pytest

from slipway.contract.installed import NAMES, Installed
from slipway.repository import assemble
from slipway.serving.doctor import gpu, machine, steps
from slipway.serving.doctor.checks import MARKS
from slipway.serving.doctor.examine import Diagnosis, examine
from tests.support.cards import H100, card_of
from tests.support.colours import COLOURS, contents, reseal
from tests.support.gpu_lanes import gpu_classifier, with_gpu
from tests.support.lint_changes import MODEL, in_lane
from tests.support.scripts import run_script
from tests.support.seeded_defects import good, model

ROOT = Path(__file__).parents[2]
UNTOLD = MARKS["untold"]
EXAMPLE = ROOT / "model_repository" / "example"
EMBEDDING = 'name: "embedding_nd"\n  data_type: TYPE_FP32\n  dims: 3'


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return shutil.copytree(EXAMPLE, tmp_path / "repository")


def step(repository: Path, kind: str) -> Path:
    (folder,) = repository.glob(f"{kind}_*")
    return folder


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def failed(diagnosis: Diagnosis) -> dict[str, str]:
    """Subject to everything that is said against it."""
    against: dict[str, str] = {}
    for check in diagnosis.checks:
        if check.state == "fail":
            against[check.subject] = f"{against.get(check.subject, '')}{check.reason} → {check.remedy}\n"
    return against


def lines(diagnosis: Diagnosis) -> str:
    return "\n".join(map(str, diagnosis.checks))


def test_the_example_would_be_served_and_stays_as_it_is(repository: Path) -> None:
    before = contents(repository)
    seen = []
    diagnosis = examine(repository, report=seen.append)
    assert failed(diagnosis) == {}
    assert diagnosis.verdict.good
    assert str(diagnosis.verdict) == "would serve: colours, colours_full"
    assert tuple(seen) == diagnosis.checks
    assert contents(repository) == before
    for kind in ("preprocess", "engine", "post"):
        assert f"✓ {step(repository, kind).name}: loads, and answers an image" in lines(diagnosis)
    assert f"openvino {openvino.__version__.partition('-')[0]}" in lines(diagnosis)


def test_every_file_that_is_not_what_was_assembled_is_named_and_what_is_whole_is_still_tried(repository: Path) -> None:
    labels, graph = step(repository, "post") / "1/labels.txt", step(repository, "engine") / "1/model.onnx"
    labels.write_text("green\nblue\nred\n")
    graph.unlink()
    (repository / "colours/notes.txt").touch()
    (repository / "outside").symlink_to("/etc")
    (repository / "lane.json").write_bytes((repository / "lane.json").read_bytes() + b"\n")
    diagnosis = examine(repository)
    against = failed(diagnosis)
    assert "changed since it was assembled" in against[str(labels.relative_to(repository))]
    assert "missing, although the manifest names it" in against[str(graph.relative_to(repository))]
    assert "not in the manifest" in against["colours/notes.txt"]
    assert "a link, which could leave the repository" in against["outside"]
    assert "changed since" in against["lane.json"]
    assert f"{UNTOLD} {step(repository, 'post').name}: not started" in lines(diagnosis)
    assert f"✓ {step(repository, 'preprocess').name}: loads" in lines(diagnosis)
    assert diagnosis.verdict.would_serve == ()
    assert set(diagnosis.verdict.would_not) == {"colours", "colours_full"}


def test_nothing_is_run_without_a_manifest_that_vouches_for_it(repository: Path, tmp_path: Path) -> None:
    (repository / "manifest.json").unlink()
    body = f"open({str(tmp_path / 'was_run')!r}, 'w')"
    (step(repository, "post") / "1/model.py").write_text(MODEL.format(body=body))
    diagnosis = examine(repository)
    assert "half-copied" in failed(diagnosis)["manifest.json"]
    assert not (tmp_path / "was_run").exists()
    assert not diagnosis.verdict.good


@pytest.mark.parametrize(
    ("what", "says"),
    [("empty", "no model"), ("file", "cannot be listed: Not a directory"), ("bundle", "this folder is of kind bundle")],
)
def test_what_is_no_repository_is_called_so(tmp_path: Path, what: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    diagnosis = examine(COLOURS / "bundle" if what == "bundle" else tmp_path / what)
    (check,) = diagnosis.checks
    assert says in str(check)
    assert str(diagnosis.verdict) == "would serve: nothing"


def test_steps_that_raise_end_or_hang_are_each_told_by_what_they_do(repository: Path) -> None:
    bodies = {"post": "raise ValueError('the dog')", "engine": "os._exit(3)", "preprocess": "time.sleep(1000)"}
    for kind, body in bodies.items():
        (step(repository, kind) / "1/model.py").write_text(MODEL.format(body=body))
    reseal(repository)
    against = failed(examine(repository, timeout_s=2.0))
    assert "ValueError: the dog" in against[step(repository, "post").name]
    assert "exit code 3" in against[step(repository, "engine").name]
    assert "not done after 2 s" in against[step(repository, "preprocess").name]


def test_a_step_that_loads_and_answers_wrongly_is_told_by_its_answer(repository: Path) -> None:
    engine, post = step(repository, "engine"), step(repository, "post")
    rewrite(engine / "config.pbtxt", EMBEDDING, EMBEDDING[:-1] + "4")
    rewrite(post / "1/postprocess.py", "answers.status_n[:, np.newaxis],", "answers.status_n[:, np.newaxis] + 3,")
    reseal(repository)
    against = failed(examine(repository))
    assert "gives embedding_nd as float32 [3], and config.pbtxt says float32 [4]" in against[engine.name]
    assert "STATUS [3] for a good image" in against[post.name]
    assert f"embedding_nd: {post.name} takes FP32 [3], but {engine.name} gives FP32 [4]" in against["colours_full"]


def test_a_graph_that_was_cut_short_is_told_in_openvinos_words(repository: Path) -> None:
    graph = step(repository, "engine") / "1/model.onnx"
    graph.write_bytes(graph.read_bytes()[:200])
    reseal(repository)
    assert "RuntimeError" in failed(examine(repository))[step(repository, "engine").name]


def test_a_missing_step_and_labels_that_do_not_fit_are_named(repository: Path) -> None:
    shutil.rmtree(step(repository, "preprocess"))
    (step(repository, "post") / "1/labels.txt").write_text("blue\ngreen\n")
    reseal(repository)
    diagnosis = examine(repository)
    against = failed(diagnosis)
    assert "is not in the repository" in against["colours"]
    assert (
        "1/labels.txt: 2 labels, and config.pbtxt says that logits_nc is [3]" in against[step(repository, "post").name]
    )
    assert "labels.txt: not the labels of post_" in against["colours_full"]
    _, of_one, of_full = str(diagnosis.verdict).splitlines()
    assert of_one.startswith("would not serve: colours, because ")
    assert "preprocess_" in of_one.partition("colours: ")[2]
    assert of_full.startswith("would not serve: colours_full, because ")


def test_what_is_well_itself_is_not_served_from_a_repository_with_a_fault(repository: Path) -> None:
    (repository / "notes").mkdir()
    diagnosis = examine(repository)
    assert "Triton treats every folder as a model" in failed(diagnosis)["notes"]
    assert diagnosis.verdict.would_serve == ()
    assert "because the repository has another fault" in str(diagnosis.verdict)


def test_a_step_that_does_not_load_hinders_those_that_need_it(tmp_path: Path) -> None:
    fleet = shutil.copytree(good("fleet"), tmp_path / "fleet")
    (model(fleet, "shades post") / "1/model.py").write_text(MODEL.format(body="raise ValueError('broken')"))
    reseal(fleet)
    verdict = examine(fleet).verdict
    assert verdict.would_serve == ("colours", "colours_full")
    assert set(verdict.would_not) == {"shades", "shades_full", "page"}
    assert not verdict.good


def test_bf16_is_refused_where_the_processor_has_none(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = step(repository, "engine")
    rewrite(engine / "config.pbtxt", 'string_value: "f32"', 'string_value: "bf16"')
    if (engine / "1/engine.json").is_file():
        rewrite(engine / "1/engine.json", '"arithmetic": "f32"', '"arithmetic": "bf16"')
    reseal(repository)
    monkeypatch.setenv("OV_CPU_MAX_ISA", "AVX2")  # what OpenVINO then takes the processor for
    assert "computes in BF16, which this processor lacks (FP32" in failed(examine(repository))[engine.name]


@pytest.fixture
def gpu_lane(tmp_path: Path) -> Path:
    """With a stand-in for its plan, and NVIDIA's DALI backend as its decoder."""
    assemble([gpu_classifier(tmp_path, "9.0", spec=with_gpu(decode="native"))], tmp_path / "gpu", lane="gpu")
    return tmp_path / "gpu"


def test_the_isolated_decoder_is_tried_on_the_cpu_of_a_machine_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assemble([gpu_classifier(tmp_path, "9.0")], tmp_path / "gpu", lane="gpu")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    diagnosis = examine(tmp_path / "gpu")
    assert f"✓ {step(tmp_path / 'gpu', 'preprocess').name}: loads, and answers an image" in lines(diagnosis)


def test_the_isolated_decoder_is_tried_on_the_gpu_of_a_machine_that_has_one(
    tmp_path: Path, gpu_host: Callable[[str], None]
) -> None:
    """There is none here in truth, and the decoder says so."""
    assemble([gpu_classifier(tmp_path, "9.0")], tmp_path / "gpu", lane="gpu")
    gpu_host("9.0")
    against = failed(examine(tmp_path / "gpu"))
    assert list(against) == [step(tmp_path / "gpu", "preprocess").name]


def test_a_gpu_lane_on_a_machine_without_a_gpu_says_so_and_all_the_rest_is_checked(
    gpu_lane: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    diagnosis = examine(gpu_lane)
    against = failed(diagnosis)
    assert "the gpu lane, and this machine has no usable GPU: no nvidia-smi on PATH" in against["GPU"]
    for kind, backend in (("decode", "dali"), ("engine", "tensorrt")):
        assert f"has no {backend} backend, only the Python backend" in against[step(gpu_lane, kind).name]
        assert "container" in against[step(gpu_lane, kind).name]
    said = lines(diagnosis)
    for kind in ("guard", "post"):
        assert f"✓ {step(gpu_lane, kind).name}: loads, and answers an image" in said
    assert (
        f"{UNTOLD} {step(gpu_lane, 'decode').name}: dali.py can be imported; its pipeline can only be built on a GPU"
        in said
    )
    assert "model_sm90.plan by TensorRT 10.16.1.11 for 9.0; cannot be checked without a GPU" in said
    assert "✓ colours_full: guard_" in said
    assert diagnosis.verdict.would_serve == ()


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def gpu_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`gpu_host(capability)` makes this machine look like one, by a script in the place of its server."""

    def gpu_host(capability: str) -> None:
        (tmp_path / "bin").mkdir()
        script(tmp_path / "bin/tritonserver", "echo 'Usage: tritonserver --model-repository <string>'")
        for backend in ("python", "dali", "tensorrt"):
            (tmp_path / "backends" / backend).mkdir(parents=True)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
        monkeypatch.setattr(machine, "DEFAULT_BACKENDS", tmp_path / "backends")
        monkeypatch.setattr(steps, "tensorrt_version", lambda: "10.16.1")
        monkeypatch.setattr(gpu, "cards", lambda: (card_of(capability),))

    return gpu_host


def decode_on_the_cpu(repository: Path) -> None:
    """DALI's device switched, so that its pipeline can be built here."""
    rewrite(step(repository, "decode") / "1/preprocess.json", '"decoder": "mixed"', '"decoder": "cpu"')
    reseal(repository)


def test_a_gpu_lane_on_its_own_machine_would_be_served(gpu_lane: Path, gpu_host: Callable[[str], None]) -> None:
    decode_on_the_cpu(gpu_lane)
    gpu_host("9.0")
    diagnosis = examine(gpu_lane)
    assert failed(diagnosis) == {}
    assert diagnosis.verdict.good
    assert f"✓ {step(gpu_lane, 'decode').name}: dali.py is serialised" in lines(diagnosis)
    assert f"✓ GPU: {H100}, driver 580.95.05" in lines(diagnosis)
    assert "✓ decoder: the versions that the plans were evaluated with" in lines(diagnosis)


@pytest.mark.parametrize("field", ["dali", "nvimgcodec"])
def test_a_gpu_lane_that_does_not_name_the_decoder_of_its_plans_would_not_be_served(
    field: str, gpu_lane: Path, gpu_host: Callable[[str], None]
) -> None:
    decode_on_the_cpu(gpu_lane)
    in_lane(**{field: None})(gpu_lane)
    reseal(gpu_lane)
    gpu_host("9.0")
    diagnosis = examine(gpu_lane)
    assert failed(diagnosis)["decoder"].startswith(f"lane.json does not say with which {NAMES[field]} the plans were")
    assert f"plan.{field}: made with {NAMES[field]}" in failed(diagnosis)[step(gpu_lane, "engine").name]
    assert diagnosis.verdict.would_serve == ()


def test_a_gpu_that_no_plan_is_for_and_a_pipeline_that_cannot_be_built_are_named(
    gpu_lane: Path, gpu_host: Callable[[str], None]
) -> None:
    gpu_host("8.9")
    against = failed(examine(gpu_lane))  # `mixed` needs a driver, which is not here in truth
    assert "no plan for NVIDIA L4 (compute capability 8.9), only for 9.0" in against[step(gpu_lane, "engine").name]
    assert "dali.py: " in against[step(gpu_lane, "decode").name]


def test_a_decoder_that_is_not_that_of_the_plans_numbers_is_named_with_the_release_that_has_it(
    tmp_path: Path, gpu_host: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_with = {"release": "26.08", "dali": "2.2.0", "nvimgcodec": "0.8.0.22"}
    repository = tmp_path / "gpu"
    classifier = gpu_classifier(tmp_path, "9.0", plan=made_with, spec=with_gpu(decode="native"))
    assemble([classifier], repository, lane="gpu")
    decode_on_the_cpu(repository)
    gpu_host("9.0")
    here = Installed(release="26.09", tensorrt="10.16.1", dali="2.3.0", nvimgcodec="0.8.0.22")
    monkeypatch.setattr(machine.Installed, "here", classmethod(lambda _: here))
    diagnosis = examine(repository)
    assert failed(diagnosis)["decoder"].startswith("DALI 2.2.0 is needed, and 2.3.0 is installed in release 26.09")
    assert "serve it in release 26.08 (slipway container serve)" in lines(diagnosis)
    assert diagnosis.verdict.would_serve == ()


def test_the_script_prints_every_finding_and_ends_with_0_or_1(repository: Path) -> None:
    done = run_script("build/doctor.py", repository, "--json", cwd=ROOT)
    *_, verdict, last = done.stdout.splitlines()
    assert verdict == "would serve: colours, colours_full"
    said = json.loads(last)
    assert said["verdict"] == {"would_serve": ["colours", "colours_full"], "would_not": {}, "may_serve": []}
    assert {check["state"] for check in said["checks"]} <= {"ok", "untold"}
    (step(repository, "post") / "1/labels.txt").unlink()
    done = run_script("build/doctor.py", repository, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "✗ post_" in done.stdout
    assert "→ copy the repository again" in done.stdout


def test_a_terminal_without_the_marks_still_gets_the_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run_script("build/doctor.py", tmp_path, cwd=ROOT, check=False)
    assert "has no folder, so it has no model" in done.stdout
    assert done.stderr == ""
