"""Weights that training starts from: loaded, or an error that says how to get them; never a silent random start."""

import pickle
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import timm
import torch
from huggingface_hub import constants as hub
from safetensors.torch import load_file, save_file

from slipway.contract import SpecError
from slipway.contract.recipe import HeadRecipe
from slipway.contract.spec import Backbone
from slipway.system.files import sha256_file
from slipway.training import train
from slipway.training.learn.network import Network
from slipway.training.learn.weights import fill_backbone
from tests.support.damage import Payload
from tests.support.small_training import make_spec, one_thread, write_digits, write_weights


def make_network(*, classes: int = 3, name: str = "resnet10t", head: HeadRecipe | None = None) -> Network:
    return Network(
        Backbone(name=name, pretrained=False),
        classes=classes,
        pretrained=False,
        input_size=(32, 32),
        head=head or HeadRecipe(),
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of timm's resnet10t with five classes."""
    return write_weights(tmp_path_factory.mktemp("weights") / "weights.safetensors")


def test_the_backbone_is_the_files_and_the_head_is_said(weights: Path) -> None:
    network = make_network()
    head = network.backbone.fc.weight.clone()
    said = fill_backbone(network, weights)
    expected = load_file(weights)
    assert said == "head at random: the file's head is 5x512, this one 3x512"
    assert torch.equal(network.backbone.fc.weight, head)
    assert all(torch.equal(v, expected[k]) for k, v in network.backbone.state_dict().items() if not k.startswith("fc."))


def test_a_head_that_fits_is_loaded_and_said(weights: Path) -> None:
    network = make_network(classes=5)
    assert fill_backbone(network, weights) == "with its head, whose shape fits"
    assert torch.equal(network.backbone.fc.weight, load_file(weights)["fc.weight"])


def test_a_checkpoint_is_the_start_of_a_new_task_with_another_head(weights: Path, tmp_path: Path) -> None:
    data = write_digits(tmp_path / "data", each=8 * 2)
    with one_thread():
        train(make_spec(data, weights=weights, epochs=1), tmp_path / "first")
        first = tmp_path / "first/model.safetensors"
        spec = make_spec(data, weights=first, epochs=1, freeze_epochs=1, head={"kind": "mlp", "units": 4})
        manifest = train(spec, tmp_path / "second")
    assert manifest.inputs["weights"] == sha256_file(first)
    assert manifest.measured["weights"].endswith("head at random: the file's head is 3x512, this one 4x512 and 3x4")
    second = load_file(tmp_path / "second/model.safetensors")
    assert torch.equal(second["backbone.layer1.0.conv1.weight"], load_file(first)["backbone.layer1.0.conv1.weight"])


def test_weights_of_another_backbone_are_an_error_that_lists_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(timm.create_model("resnet14t", num_classes=3).state_dict(), path)
    with pytest.raises(SpecError) as caught:
        fill_backbone(make_network(), path)
    message = str(caught.value)
    assert "not weights of resnet10t for this input size" in message
    assert "unexpected: backbone.layer" in message
    assert "of another shape: " in message
    assert "[" in message


def test_one_missing_tensor_is_an_error_by_name(weights: Path, tmp_path: Path) -> None:
    lacking = load_file(weights)
    del lacking["layer2.0.bn1.running_var"]
    save_file(lacking, tmp_path / "lacking.safetensors")
    with pytest.raises(SpecError, match=r"missing: backbone\.layer2\.0\.bn1\.running_var"):
        fill_backbone(make_network(), tmp_path / "lacking.safetensors")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_weight_that_is_not_finite_is_an_error_by_name(weights: Path, tmp_path: Path, value: str) -> None:
    broken = load_file(weights)
    broken["layer1.0.conv1.weight"][0, 0, 0, 0] = float(value)
    save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(SpecError, match=r"NaN or infinity in layer1\.0\.conv1\.weight"):
        fill_backbone(make_network(), tmp_path / "broken.safetensors")


@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_a_pickle_is_refused_with_how_to_convert_it_and_never_opened(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    payload = Payload(tmp_path / "trace")
    if kind == "torch":
        torch.save(payload, path)
    else:
        path.write_bytes(pickle.dumps(payload))
    with pytest.raises(SpecError, match=r"weights\.pth: a pickle, which can run code .*safetensors\.torch\.save_file"):
        fill_backbone(make_network(), path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), (b"", "not a safetensors"), (b"{}", "truncated")]
)
def test_a_file_that_is_not_there_or_not_whole_is_an_error(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=rf"weights\.safetensors: .*{reason}"):
        fill_backbone(make_network(), path)


def test_a_backbone_without_weights_is_an_error_and_no_random_start() -> None:
    without = next(name for name in timm.list_models() if not timm.get_pretrained_cfg(name).has_weights)
    with pytest.raises(SpecError, match=rf"weights of {without} cannot be loaded: timm has none; .*pretrained: false"):
        Network(Backbone(name=without), classes=3, pretrained=True, input_size=(224, 224))


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[BaseHTTPRequestHandler]]:
    """A model hub of our own that answers each request with `status`, and an empty cache."""

    class Hub(BaseHTTPRequestHandler):
        status = 0

        def do_HEAD(self) -> None:
            self.send_response(self.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        at = f"http://127.0.0.1:{server.server_port}/{{repo_id}}/{{revision}}/{{filename}}"
        monkeypatch.setattr(hub, "HUGGINGFACE_CO_URL_TEMPLATE", at)
        monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(timm, "create_model", _refuse)
        yield Hub
        server.shutdown()


def _refuse(*_: object, **__: object) -> None:
    raise RuntimeError("timm was asked")


@pytest.mark.parametrize(("status", "said"), [(503, "503"), (404, "timm was asked")])
def test_a_hub_in_trouble_is_asked_once_before_timm_asks_again_and_again(
    status: int, said: str, answering: type[BaseHTTPRequestHandler]
) -> None:
    answering.status = status  # type: ignore[attr-defined]
    with pytest.raises(SpecError, match=rf"weights of resnet10t cannot be loaded: (?s:.)*{said}(?s:.)*name: resnet10t"):
        Network(Backbone(name="resnet10t"), classes=3, pretrained=True, input_size=(32, 32))


@pytest.mark.usefixtures("answering")
def test_no_network_is_an_error_before_timm_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    with pytest.raises(SpecError, match=r"does not answer \(.*pretrained: false"):
        Network(Backbone(name="resnet10t"), classes=3, pretrained=True, input_size=(32, 32))
