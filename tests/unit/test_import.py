"""An import asks for what is missing by name, resolves preprocess as timm does, and takes the right weights alone."""

import importlib.util
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import timm
import torch
import yaml
from bad_images import encode
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import save_file
from timm.models import PretrainedCfg

from slipway.contract import Bundle, Spec, SpecError
from slipway.contract.cli import run
from slipway.contract.files import sha256_file
from slipway.contract.spec import Backbone
from slipway.training import complete_spec, import_timm
from slipway.training.importing import preprocess_of
from slipway.training.network import Network

ROOT = Path(__file__).parents[2]
COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}
BACKBONE = "test_vit"  # timm's own smallest transformer; its input is fixed at 160 px


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 images of one colour each in three class folders."""
    root = tmp_path_factory.mktemp("images")
    for label, colour in COLOURS.items():
        (root / label).mkdir()
        for number in range(20):
            shade = tuple(c + number for c in colour)
            (root / label / f"{number}.png").write_bytes(encode(Image.new("RGB", (20, 18 + number), shade), "PNG"))
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state dict of `BACKBONE` for 32 px and three classes, at random."""
    torch.manual_seed(0)
    model = timm.create_model(BACKBONE, num_classes=3, img_size=(32, 32))
    path = tmp_path_factory.mktemp("weights") / "team.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path


def spec(images: Path, **changes: Any) -> dict[str, Any]:
    """A spec of 32 px; a change to None leaves the key out."""
    values = {
        "name": "colours",
        "data": {"root": str(images)},
        "preprocess": {"input_height": 32, "input_width": 32},
        "backbone": {"name": BACKBONE},
        "calibration": {"images": 12},
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


def written(folder: Path, values: Any) -> Path:
    (folder / "spec.yaml").write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return folder / "spec.yaml"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """`call("spec.yaml", …)` runs the script in `tmp_path` and returns its exit code, or its last message."""
    monkeypatch.chdir(tmp_path)
    location = importlib.util.spec_from_file_location("import_bundle", ROOT / "build/import_bundle.py")
    assert location is not None
    assert location.loader is not None
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)

    def call(*arguments: Path | str) -> Any:
        monkeypatch.setattr(sys, "argv", ["import_bundle.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run(module.main, module.parser())
        return ended.value.code

    return call


def test_everything_that_is_missing_is_asked_for_at_once_and_by_name(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        complete_spec(written(tmp_path, "decision: {top_k: 3}"), onnx=None, labels_given=False)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/spec.yaml: an import needs what is not given:")
    assert [line.split(":")[0].strip() for line in message.splitlines()[1:]] == [
        "labels",
        "name",
        "data.root",
        "backbone.name",
        "preprocess",
    ]
    for remedy in ("--labels FILE", "--labels-from-folders", "--preprocess-from-timm MODEL"):
        assert remedy in message


@pytest.mark.parametrize(
    ("changes", "labels_given", "onnx", "missing"),
    [
        ({}, False, None, ["labels"]),
        ({"name": None}, True, None, ["name"]),
        ({"data": None}, True, None, ["data.root"]),
        ({"data": {"seed": 1}}, True, None, ["data.root"]),
        ({"backbone": None}, True, None, ["backbone.name"]),
        ({"backbone": None, "preprocess": None}, True, Path("team.onnx"), ["preprocess"]),
        ({"backbone": {"name": "ours"}, "preprocess": None}, True, Path("team.onnx"), ["preprocess"]),
        ({"backbone": None, "preprocess": None}, False, None, ["labels", "backbone.name", "preprocess"]),
    ],
)
def test_what_is_missing_is_asked_for_by_name(
    changes: dict[str, Any], labels_given: bool, onnx: Path | None, missing: list[str], tmp_path: Path
) -> None:
    path = written(tmp_path, spec(tmp_path, **changes))
    with pytest.raises(SpecError) as error:
        complete_spec(path, onnx=onnx, labels_given=labels_given)
    assert [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]] == missing


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({"backbone": {"name": "resnet999"}}, {}, "backbone.name: timm has no 'resnet999'; near it are: "),
        ({"backbone": {"name": "resnet50.nobody"}}, {}, "backbone.name: resnet50.nobody: Invalid pretrained tag"),
        ({"recipes": {}}, {}, "recipes: unknown key; the valid keys here are accuracy, backbone"),
        ({"preprocess": {"input_width": 32}}, {}, "preprocess.input_height: required"),
        ({"data": 5}, {}, "data: Input should be a valid dictionary; given 5"),
        ({"task": "multilabel"}, {}, "task: multilabel cannot be evaluated on class folders; .* here is multiclass"),
        (
            {"preprocess": {"input_height": 32, "input_width": 32, "decoder": "mixed"}},
            {},
            "preprocess.decoder: mixed belongs to the gpu lane",
        ),
        ({}, {"preprocess_from": "resnet50"}, "preprocess is given, and --preprocess-from-timm too; leave out one"),
        ({"preprocess": None}, {"preprocess_from": "resnet999"}, "timm has no 'resnet999'"),
        ("name: [pets\n", {}, "spec.yaml: not valid YAML"),
        ("", {}, "spec.yaml: .the whole file."),
    ],
)
def test_what_is_wrong_is_named(values: Any, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = written(tmp_path, values if isinstance(values, str) else spec(tmp_path, **values))
    with pytest.raises(SpecError, match=message):
        complete_spec(path, onnx=None, labels_given=True, **options)


def test_a_given_preprocess_is_kept_and_an_onnx_file_needs_no_backbone(tmp_path: Path) -> None:
    path = written(tmp_path, spec(tmp_path, backbone=None))
    found, origin = complete_spec(path, onnx=Path("models/team.onnx"), labels_given=True)
    assert origin is None
    assert found == Spec.parse(spec(tmp_path, backbone={"name": "team.onnx", "pretrained": False}), source="test")


@pytest.mark.parametrize("onnx", [None, Path("team.onnx")])
def test_a_preprocess_that_is_left_out_is_that_of_the_timm_backbone(onnx: Path | None, tmp_path: Path) -> None:
    path = written(tmp_path, spec(tmp_path, preprocess=None, backbone={"name": "vit_tiny_patch16_224"}))
    found, origin = complete_spec(path, onnx=onnx, labels_given=True)
    assert origin == "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    given = found.preprocess
    assert (given.input_height, given.input_width, given.resize, given.interpolation) == (224, 224, "crop", "cubic")
    assert given.mean == given.std == (0.5, 0.5, 0.5)
    assert 224 / given.crop_fraction == pytest.approx(248), "timm resizes to floor(224 / 0.9), not to 249"


def test_an_onnx_file_can_take_the_preprocess_of_any_timm_model(tmp_path: Path) -> None:
    path = written(tmp_path, spec(tmp_path, preprocess=None, backbone=None))
    found, origin = complete_spec(path, onnx=Path("x.onnx"), labels_given=True, preprocess_from="test_resnet")
    assert origin == "test_resnet.r160_in1k"
    assert (found.preprocess.input_height, found.preprocess.interpolation) == (160, "linear")
    assert found.backbone.name == "x.onnx"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"crop_mode": "squash"}, "trained with crop_mode squash changes the images' proportions, .* crop or pad"),
        ({"crop_mode": "border", "crop_pct": 0.9}, "crop_mode border with a crop"),
        ({"crop_mode": "border", "crop_pct": 1.0}, "a border that is not grey"),
        ({"interpolation": "lanczos"}, "interpolation lanczos; preprocess.interpolation is linear or cubic"),
        ({"crop_pct": 1.15}, "pretrained_cfg of .*: crop_fraction: Input should be less than or equal to 1"),
    ],
)
def test_a_preparation_that_preprocess_cannot_express_is_refused(
    config: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: PretrainedCfg(architecture=name, **config))
    with pytest.raises(SpecError, match=message):
        preprocess_of("resnet50")


def test_timm_s_border_becomes_a_pad_in_the_mean_s_grey(monkeypatch: pytest.MonkeyPatch) -> None:
    config = PretrainedCfg(architecture="x", crop_mode="border", crop_pct=1.0, mean=(0.5, 0.5, 0.5))
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda _: config)
    found, name = preprocess_of("resnet50")
    assert (found.resize, found.pad_value, found.crop_fraction, name) == ("pad", 128, 1.0, "x")


@pytest.mark.parametrize("name", [BACKBONE, "swin_s3_tiny_224"])
def test_a_backbone_of_a_fixed_input_is_built_for_the_size_of_the_spec(name: str) -> None:
    backbone = Backbone(name=name, pretrained=False)
    network = Network(backbone, classes=3, pretrained=False, input_size=(64, 32)).eval()
    with torch.inference_mode():
        logits_nc, embedding_nd = network(torch.zeros(2, 3, 64, 32))
    assert logits_nc.shape == (2, 3)
    assert embedding_nd.ndim == 2


def test_a_size_that_a_backbone_cannot_have_is_an_error_that_names_it() -> None:
    with pytest.raises(SpecError, match=r"preprocess: backbone nest_tiny cannot be built for 33x33 pixels .*change"):
        Network(Backbone(name="nest_tiny", pretrained=False), classes=3, pretrained=False, input_size=(33, 33))


def test_timm_weights_become_a_bundle_and_labels_give_the_order(images: Path, weights: Path, tmp_path: Path) -> None:
    checked, _ = complete_spec(written(tmp_path, spec(images)), onnx=None, labels_given=True)
    manifest = import_timm(checked, weights, tmp_path / "bundle", labels=("red", "green", "blue"))
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.labels == ("red", "green", "blue")
    assert bundle.spec == checked
    assert len(bundle.load_calibration()) == 12
    assert manifest.inputs == {"team.safetensors": sha256_file(weights)}
    assert manifest.measured["origin"] == "import timm"
    assert manifest.measured["max_logit_difference"] < 1e-3
    dataset = json.loads((bundle.path / "dataset.json").read_text())
    assert {image["path"].split("/")[0]: image["class_id"] for image in dataset["images"]} == {
        "red": 0,
        "green": 1,
        "blue": 2,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("norm.weight"), r"\n  missing: norm.weight\n"),
        (lambda state: state.update({"teacher.x": torch.zeros(1)}), r"\n  unexpected: teacher.x\n"),
        (
            lambda state: state.update({"head.weight": torch.zeros(1000, 64)}),
            r"\n  of another shape: head.weight \[1000, 64\] instead of \[3, 64\]\n",
        ),
        (
            lambda state: [state.update({f"model.{name}": state.pop(name)}) for name in list(state)],
            r"missing: .* and \d+ more\n  unexpected: model\..* and \d+ more\n.* without a prefix",
        ),
        (
            lambda state: state["norm.weight"].fill_(float("nan")),
            r"team.safetensors: NaN in norm.weight; take a checkpoint",
        ),
    ],
    ids=["missing", "unexpected", "shape", "prefix", "NaN"],
)
def test_weights_that_do_not_fit_are_named(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, images: Path, tmp_path: Path
) -> None:
    state = dict(timm.create_model(BACKBONE, num_classes=3, img_size=(32, 32)).state_dict())
    change(state)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "team.safetensors")
    checked, _ = complete_spec(written(tmp_path, spec(images)), onnx=None, labels_given=True)
    with pytest.raises(SpecError, match=message):
        import_timm(checked, tmp_path / "team.safetensors", tmp_path / "bundle", labels=None)
    assert not (tmp_path / "bundle").exists()


class Payload:
    """Unpickling this makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("name", ["team.pt", "team.pth", "team.bin", "team.ckpt", "team.safetensors"])
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_is_refused_with_the_remedy_and_never_opened(
    name: str, how: str, images: Path, call: Callable[..., Any], tmp_path: Path
) -> None:
    payload = {"weight": torch.zeros(1), "hidden": Payload(tmp_path / "trace")}
    if how == "torch":
        torch.save(payload, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(payload))
    written(tmp_path, spec(images))
    message = call("spec.yaml", "--weights", name, "--labels-from-folders", "--out", "bundle")
    assert f"{name}: a pickle, which can run code when opened; write it once as safetensors" in message
    assert "weights_only=True" in message
    assert sorted(os.listdir(tmp_path)) == ["spec.yaml", name]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"", "no safetensors file, or one that was cut short"),
        (b"text", "no safetensors file, or one that was cut short"),
        (0.5, "no safetensors file, or one that was cut short"),
        (0.999, "no safetensors file, or one that was cut short"),
    ],
)
def test_a_file_that_is_no_whole_safetensors_is_refused(
    data: bytes | float | None, message: str, images: Path, weights: Path, tmp_path: Path
) -> None:
    if isinstance(data, float):
        data = weights.read_bytes()[: int(data * weights.stat().st_size)]
    if data is not None:
        (tmp_path / "cut.safetensors").write_bytes(data)
    checked, _ = complete_spec(written(tmp_path, spec(images)), onnx=None, labels_given=True)
    with pytest.raises(SpecError, match=rf"cut\.safetensors: {message}"):
        import_timm(checked, tmp_path / "cut.safetensors", tmp_path / "bundle", labels=None)


def colour_network(path: Path, classes: int = 3) -> None:
    """An ONNX file that knows colours: the logits are the channels' means, times 20."""
    head = torch.eye(3, classes).numpy() * 20
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "head"], ["scores"]),
    ]
    pixels, scores = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["batch", 3, 32, 32]), ("scores", ["batch", classes]))
    )
    graph = helper.make_graph(nodes, "team", [pixels], [scores], [numpy_helper.from_array(head, "head")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_the_script_imports_an_onnx_file_and_says_what_it_found(
    images: Path, call: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colour_network(tmp_path / "team.onnx")
    written(tmp_path, spec(images, backbone=None))
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    arguments = ["spec.yaml", "--onnx", "team.onnx", "--labels", "labels.txt", "--json"]
    assert call(*arguments, "--out", "bundle") is None
    output = capsys.readouterr().out
    for part in ("logits_nc is the file's scores", "embedding_nd is the file's features", "top-1 100.00%", "next: "):
        assert part in output
    bundle = Bundle.open(tmp_path / "bundle")
    summary = json.loads(output.splitlines()[-1])
    assert summary["id"] == bundle.id
    assert summary["origin"] == bundle.manifest.measured["origin"] == "import onnx"
    assert bundle.manifest.inputs == {"team.onnx": sha256_file(tmp_path / "team.onnx")}
    assert bundle.spec.backbone.name == "team.onnx"
    assert call(*arguments, "--out", "again") is None
    assert Bundle.open(tmp_path / "again").id == bundle.id


def test_labels_in_another_order_are_seen_in_the_accuracy(
    images: Path, call: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colour_network(tmp_path / "team.onnx")
    written(tmp_path, spec(images, backbone=None))
    assert call("spec.yaml", "--onnx", "team.onnx", "--labels-from-folders", "--out", "bundle") is None
    output = capsys.readouterr().out  # blue, green, red: only green is where the network has it
    assert "top-1 33.33%" in output
    assert "labels are not in the order of the logits" in output


LABELS: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "labels.txt: cannot be read: No such file"),
    "too few": (b"red\ngreen\n", "folders without a label: 'blue'"),
    "too many": (b"red\ngreen\nblue\npink\n", "labels without a folder: 'pink'"),
    "duplicated": (b"red\nred\nblue\n", "label 'red' stands for classes 0 and 1"),
    "an empty line": (b"red\n\nblue\n", "labels.txt: label 1 is ''"),
    "Windows line ends": (b"red\r\ngreen\r\nblue\r\n", "label 0 is 'red\\r'; use printable text"),
    "not text": (b"\xff\xfe", "labels.txt: not UTF-8 text"),
    "none": (b"", "labels.txt: 1 label(s) given; a classifier needs at least 2"),
}


@pytest.mark.parametrize("fault", LABELS)
def test_labels_that_cannot_be_are_named(fault: str, images: Path, call: Callable[..., Any], tmp_path: Path) -> None:
    data, message = LABELS[fault]
    if data is not None:
        (tmp_path / "labels.txt").write_bytes(data)
    colour_network(tmp_path / "team.onnx")
    written(tmp_path, spec(images, backbone=None))
    assert message in call("spec.yaml", "--onnx", "team.onnx", "--labels", "labels.txt", "--out", "bundle")
    assert not (tmp_path / "bundle").exists()


REFUSED: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "a tensor's name with weights": (
        {},
        ["--weights", "x.safetensors", "--logits", "y"],
        "--logits and --embedding name tensors of an ONNX file",
    ),
    "no such images": (
        {"data": {"root": "nowhere"}},
        ["--onnx", "team.onnx"],
        "nowhere: no such folder; data.root is one folder",
    ),
    "too few images to calibrate": (
        {"calibration": {"images": 500}},
        ["--onnx", "team.onnx"],
        "calibration.images: 500 asked for, and the train split has 42",
    ),
    "more logits than labels": (
        {},
        ["--onnx", "five.onnx"],
        "five.onnx: 5 logits an image, and 3 labels; give one label for each",
    ),
    "another input size": (
        {"preprocess": {"input_height": 64, "input_width": 32}},
        ["--onnx", "team.onnx"],
        "and preprocess makes 64x32 pixels",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_an_import_that_cannot_be_ends_with_one_message_and_leaves_nothing(
    fault: str, images: Path, call: Callable[..., Any], tmp_path: Path
) -> None:
    changes, options, message = REFUSED[fault]
    colour_network(tmp_path / "team.onnx")
    colour_network(tmp_path / "five.onnx", classes=5)
    written(tmp_path, spec(images, **changes))
    before = sorted(os.listdir(tmp_path))
    assert message in call("spec.yaml", *options, "--labels-from-folders", "--out", "bundle")
    assert sorted(os.listdir(tmp_path)) == before


def test_a_folder_of_somebody_is_not_replaced(images: Path, call: Callable[..., Any], tmp_path: Path) -> None:
    colour_network(tmp_path / "team.onnx")
    written(tmp_path, spec(images))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/mine.txt").write_text("mine")
    message = call("spec.yaml", "--onnx", "team.onnx", "--labels-from-folders", "--out", "bundle")
    assert "bundle: not empty, and not written by this stage" in message
    assert os.listdir(tmp_path / "bundle") == ["mine.txt"]


@pytest.mark.parametrize(
    "options",
    [
        ["--labels-from-folders"],
        ["--onnx", "a", "--weights", "b"],
        ["--onnx", "a", "--labels", "b", "--labels-from-folders"],
        ["--onnx", "a", "--outt", "b"],
    ],
)
def test_options_that_do_not_go_together_end_with_2(options: list[str], call: Callable[..., Any]) -> None:
    assert call("spec.yaml", *options, "--out", "bundle") == 2


def test_help_needs_no_library(call: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    text = capsys.readouterr().out
    for option in ("--onnx", "--weights", "--labels", "--preprocess-from-timm", "--logits", "--embedding", "--json"):
        assert option in text
