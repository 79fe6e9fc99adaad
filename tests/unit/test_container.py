"""The docker commands that build images, compile plans and serve: what they mount, open and close. Nothing is run."""

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from slipway.cli.container import parser
from slipway.contract import Bundle, Lane, SlipwayError
from slipway.contract.lane import MOST_GPUS
from slipway.contract.nvidia_releases import NEWEST, RELEASES
from slipway.lint.models import read_models
from slipway.repository import Classifier, assemble
from slipway.system.files import complete_folder
from tests.support.colours import COLOURS, copy_colours
from tests.support.gpu_lanes import gpu_classifier
from tests.support.heads import open_heads, write_base, write_heads
from tests.support.plans import stand_in_plan
from tests.support.scripts import ROOT, run_here, run_script

EXAMPLE = ROOT / "model_repository/example"


@pytest.fixture
def gpu_lane(tmp_path: Path) -> Path:
    bundle = Bundle.open(COLOURS / "bundle")
    repository = tmp_path / "repositories/gpu"
    assemble([Classifier(bundle, stand_in_plan(tmp_path / "plan", bundle))], repository, lane="gpu")
    return repository


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with a bundle in it."""
    folder = tmp_path / "work"
    shutil.copytree(COLOURS / "bundle", folder / "runs/colours/bundle")
    return folder


COMPILE = ("compile", "runs/colours/bundle", "--graphs", "runs/colours/graphs", "--out", "runs/colours/engines")


def printed(*words: str | Path, cwd: Path) -> list[str]:
    """The command that `slipway container` prints for these words in this folder."""
    with contextlib.chdir(cwd):
        arguments = parser().parse_args([str(word) for word in words])
        command: list[str] = arguments.command_of(arguments)
    return command


def refusal(*words: str | Path, cwd: Path) -> str:
    """The message with which it refuses them."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), pytest.raises((SlipwayError, SystemExit)) as raised:
        printed(*words, cwd=cwd)
    return f"{said.getvalue()}{raised.value}"


def option(command: list[str], name: str) -> list[str]:
    return [value for flag, value in pairwise(command) if flag == name]


@pytest.mark.parametrize("kind", ["gpu", "cpu", "compile"])
def test_every_image_is_built_of_the_release_that_is_asked_for(kind: str) -> None:
    for release in ([], ["--release", RELEASES[0].name]):
        wanted = release[1] if release else NEWEST.name
        command = printed("build", kind, *release, cwd=ROOT)
        assert command[:2] == ["docker", "build"]
        assert option(command, "--build-arg") == [f"RELEASE={wanted}"]
        assert option(command, "--tag") == [f"slipway-{kind}:{wanted}"]
        assert (ROOT / option(command, "--file")[0]).is_file()


def test_compiling_and_serving_take_the_images_that_build_makes(gpu_lane: Path, work: Path) -> None:
    assert f"slipway-compile:{NEWEST.name}" in printed(*COMPILE, cwd=work)
    assert f"slipway-gpu:{NEWEST.name}" in printed("serve", gpu_lane, cwd=work)
    assert f"slipway-cpu:{RELEASES[0].name}" in printed("serve", EXAMPLE, "--release", RELEASES[0].name, cwd=work)


def test_the_printed_line_is_the_command_for_a_shell(gpu_lane: Path, tmp_path: Path) -> None:
    done = run_script("build/container.py", "serve", gpu_lane, "--json", cwd=tmp_path)
    line, as_json = done.stdout.splitlines()
    program = "import sys; print(sys.argv[1:])"
    shell = f"{sys.executable} -c '{program}' {line}"
    parsed = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout
    assert parsed.strip() == str(json.loads(as_json)["command"])


def test_compiling_sees_the_present_folder_alone_and_writes_as_the_user(work: Path) -> None:
    command = printed(*COMPILE, cwd=work)
    assert option(command, "--mount") == [f"type=bind,source={work},target=/work"]
    assert option(command, "--user") == [f"{os.getuid()}:{os.getgid()}"]
    assert option(command, "--gpus") == ["all"]
    inner = command[command.index(f"slipway-compile:{NEWEST.name}") + 1 :]
    assert inner == [*COMPILE, "--target", "tensorrt"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a folder away")
def test_root_compiles_as_the_owner_of_the_folder(work: Path) -> None:
    """Without its capabilities root cannot write there."""
    os.chown(work, 1234, 2345)
    assert option(printed(*COMPILE, cwd=work), "--user") == ["1234:2345"]


def test_absolute_paths_inside_the_folder_become_those_of_the_container(work: Path) -> None:
    absolute = [str(work / part) if part.startswith("runs/") else part for part in COMPILE]
    assert printed(*absolute, cwd=work) == printed(*COMPILE, cwd=work)


def test_a_folder_whose_name_begins_with_a_dash_is_no_option_in_the_container(work: Path) -> None:
    assert printed(*COMPILE[:-1], "./-engines", cwd=work)[-3:] == ["./-engines", "--target", "tensorrt"]


def test_serving_opens_loopback_alone_and_mounts_read_only(gpu_lane: Path, tmp_path: Path) -> None:
    command = printed("serve", gpu_lane, "--http-port", "9000", cwd=tmp_path)
    ports = ("9000:8000", "8001:8001", "8002:8002", "8003:8003")
    assert option(command, "--publish") == [f"127.0.0.1:{port}" for port in ports]
    assert option(command, "--mount") == [f"type=bind,source={gpu_lane.parent},target=/models,readonly"]
    assert command[-4:] == ["serve", "/models/gpu", "--host", "0.0.0.0"]
    assert not {"--privileged", "--network", "--ipc", "-v", "-p"} & set(command)


def test_a_mount_of_the_folder_above_shows_the_new_repository(tmp_path: Path) -> None:
    """A mount keeps the folder that it was given, whatever takes its name; here an open directory does."""
    for name in ("old", "new"):
        with complete_folder(tmp_path / "repository", kind="repository") as staging:
            (staging / name).touch()
            (staging / "manifest.json").write_text('{"kind": "repository"}')
        if name == "old":
            mounted, above = (os.open(folder, os.O_RDONLY) for folder in (tmp_path / "repository", tmp_path))
    assert "new" not in os.listdir(mounted)
    inner = os.open("repository", os.O_RDONLY, dir_fd=above)
    assert "new" in os.listdir(inner)
    for descriptor in (mounted, above, inner):
        os.close(descriptor)


def test_both_containers_are_hardened(gpu_lane: Path, work: Path) -> None:
    for command in (printed(*COMPILE, cwd=work), printed("serve", gpu_lane, cwd=work)):
        assert option(command, "--cap-drop") == ["ALL"]
        assert option(command, "--security-opt") == ["no-new-privileges"]
        assert "--read-only" in command
        assert option(command, "--tmpfs")[0].startswith("/tmp")
        assert option(command, "--ulimit") == ["memlock=-1", "stack=67108864", "nofile=65536"]
        assert option(command, "--pull") == ["never"]  # a registry's image of that name would not be ours
        assert option(command, "--log-driver") == ["local"]  # the default never forgets
        assert "--init" in command  # ends orphaned stubs
    (user,) = option(printed("serve", gpu_lane, cwd=work), "--user")
    assert not user.startswith("0:")


def test_shared_memory_and_tmp_are_as_large_as_two_of_the_repository_need(tmp_path: Path) -> None:
    command = printed("serve", EXAMPLE, cwd=tmp_path)
    instances = sum(model.instances(gpus=1) for model in read_models(EXAMPLE).values() if model.backend == "python")
    shared = int(option(command, "--shm-size")[0])
    assert shared == 2 * instances * Lane.read(EXAMPLE / "lane.json").shm_default_bytes + 64 * 2**20
    assert option(printed("serve", EXAMPLE, "--shm-size", "8g", cwd=tmp_path), "--shm-size") == ["8g"]
    size = sum(path.stat().st_size for path in EXAMPLE.rglob("*") if path.is_file())
    assert int(option(command, "--tmpfs")[0].removeprefix("/tmp:size=")) >= 2 * size + 512 * 2**20


def test_shared_memory_leaves_room_to_grow_for_many_images_in_one_request(tmp_path: Path) -> None:
    spec = {"serving": {"layout": "auto", "instances": 3, "max_batch_size": 32}}
    lane = assemble([copy_colours(tmp_path / "c", spec=spec)], tmp_path / "repositories/auto")
    assert lane.shm_default_bytes <= 6 * 2**20
    shared = int(option(printed("serve", tmp_path / "repositories/auto", cwd=tmp_path), "--shm-size")[0])
    assert shared == 2 * 3 * (2 * 32 * 2**20) + 64 * 2**20


def test_heads_add_memory_by_their_groups_and_tmp_by_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_base(tmp_path / "base")
    monkeypatch.setattr("slipway.repository.heads.GROUP", 4)
    repository = tmp_path / "repositories/heads"
    lane = assemble([], repository, bases=open_heads(base, write_heads(tmp_path / "heads", base, 12)))
    groups = len(list(repository.glob("heads_*")))
    assert groups > 1
    command = printed("serve", repository, cwd=tmp_path)
    assert f"slipway-cpu:{NEWEST.name}" in command
    assert option(command, "--shm-size") == [str(2 * (1 + groups) * lane.shm_default_bytes + 64 * 2**20)]
    size = sum(path.stat().st_size for path in repository.rglob("*") if path.is_file())
    assert int(option(command, "--tmpfs")[0].removeprefix("/tmp:size=")) >= 2 * size + 512 * 2**20


@pytest.mark.parametrize(("gpus", "places"), [((), MOST_GPUS), ((0, 3), 2)])
def test_shared_memory_holds_the_processes_of_every_gpu(gpus: tuple[int, ...], places: int, tmp_path: Path) -> None:
    """Triton makes an instance on a GPU once for each GPU that its group names, or for all that it finds."""
    classifier = gpu_classifier(tmp_path, "9.0", spec={"serving": {"gpu": {"gpus": gpus, "decode_instances": 3}}})
    lane = assemble([classifier], tmp_path / "repositories/gpu", lane="gpu")
    command = printed("serve", tmp_path / "repositories/gpu", cwd=tmp_path)
    processes = (3 + 1) * places  # of the decode and the post step
    assert option(command, "--shm-size") == [str(2 * processes * lane.shm_default_bytes + 64 * 2**20)]


def test_a_cpu_lane_is_given_no_gpu(gpu_lane: Path, tmp_path: Path) -> None:
    assert option(printed("serve", gpu_lane, "--gpus", "device=1", cwd=tmp_path), "--gpus") == ["device=1"]
    assert "--gpus" not in printed("serve", EXAMPLE, cwd=tmp_path)


@pytest.mark.parametrize("release", ["26.06", "24.10", "26.13", "26.7", "latest", "26.10; ls", ""])
def test_releases_that_do_not_exist_or_are_too_old_are_refused(release: str, tmp_path: Path) -> None:
    said = refusal("serve", "gpu", "--release", release, cwd=tmp_path)
    assert all(known.name in said for known in RELEASES)


MADE_IN_26_07 = {"release": "26.07", "version": "11.1.0.12", "dali": "2.2.0", "nvimgcodec": "0.8.0.22"}


def compiled_in(tmp_path: Path, **plan: str | bool) -> Path:
    assemble([gpu_classifier(tmp_path, "9.0", plan=MADE_IN_26_07 | plan)], tmp_path / "repositories/gpu", lane="gpu")
    return tmp_path / "repositories/gpu"


def test_plans_are_served_in_the_release_that_compiled_them(tmp_path: Path) -> None:
    repository = compiled_in(tmp_path)
    for options in ([], ["--release", "26.07"]):
        assert "slipway-gpu:26.07" in printed("serve", repository, *options, cwd=tmp_path)


@pytest.mark.parametrize(
    ("plan", "wanted", "says"),
    [
        ({}, "26.08", "TensorRT 11.1.0.12 is needed, and 11.2.1 is installed in release 26.08"),
        ({}, "26.09", "TensorRT 11.1.0.12 is needed, and 11.3 is installed in release 26.09"),
        (
            {"version_compatible": True, "dali": "2.3.0"},
            "26.08",
            "DALI 2.3.0 is needed, and 2.2.0 is installed in release 26.08",
        ),
        (
            {"version_compatible": True, "nvimgcodec": "0.9.0.20"},
            "26.08",
            "nvImageCodec 0.9.0.20 is needed, and 0.8 is installed in release 26.08",
        ),
    ],
)
def test_a_release_with_another_library_than_the_plans_need_is_refused_with_the_one_that_fits(
    plan: dict[str, str | bool], wanted: str, says: str, tmp_path: Path
) -> None:
    said = refusal("serve", compiled_in(tmp_path, **plan), "--release", wanted, cwd=tmp_path)
    assert said == f"{tmp_path / 'repositories/gpu'}: {says}; serve it in release 26.07"


def test_a_plan_that_contradicts_its_own_release_is_to_be_compiled_again(tmp_path: Path) -> None:
    said = refusal("serve", compiled_in(tmp_path, version="10.16.1.11"), cwd=tmp_path)
    assert (
        "TensorRT 10.16.1.11 is needed, and 11.1.0 is installed in release 26.07; its plans say that they are" in said
    )
    assert "compile them again in its image (slipway container compile BUNDLE --graphs GRAPHS --out" in said
    assert "serve it in release" not in said


@pytest.mark.parametrize(("plan", "wanted"), [({"version_compatible": True}, "26.08"), ({}, "26.10")])
def test_a_release_whose_known_libraries_all_fit_is_taken(
    plan: dict[str, str | bool], wanted: str, tmp_path: Path
) -> None:
    """Nothing is known of 26.10; the launcher in the container looks again."""
    assert f"slipway-gpu:{wanted}" in printed("serve", compiled_in(tmp_path, **plan), "--release", wanted, cwd=tmp_path)


def test_repositories_that_cannot_be_served_are_refused(
    gpu_lane: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no manifest.json here" in refusal("serve", "nowhere", cwd=tmp_path)
    monkeypatch.setenv("HOME", str(gpu_lane.parent))
    assert "move it out of" in refusal("serve", gpu_lane, cwd=tmp_path)
    monkeypatch.undo()
    (plan,) = gpu_lane.rglob("*.plan")
    plan.write_bytes(plan.read_bytes() + b" ")
    assert "model_sm90.plan: changed since this repository was made" in refusal("serve", gpu_lane, cwd=tmp_path)


def test_compiling_without_a_graph_that_the_spec_lists_names_the_command_that_makes_it(tmp_path: Path) -> None:
    copy_colours(tmp_path / "runs/colours", spec={"precisions": ["int8", "fp32"]})
    says = "graphs/int8: no graph for int8, which the spec lists; make it: slipway quantize runs/colours/bundle"
    assert says in refusal(*COMPILE, cwd=tmp_path)
    (tmp_path / "runs/colours/graphs/int8").mkdir(parents=True)
    assert printed(*COMPILE, cwd=tmp_path)[-len(COMPILE) - 2 :] == [*COMPILE, "--target", "tensorrt"]


def test_wrong_folders_and_ports_are_refused(gpu_lane: Path, work: Path, tmp_path: Path) -> None:
    assert "not a clone of Slipway" in refusal("build", "gpu", cwd=tmp_path)
    assert "no manifest.json here" in refusal("compile", "runs/none", *COMPILE[2:], cwd=work)
    outside = refusal(*COMPILE[:-1], "../engines", cwd=work)
    assert "../engines: outside" in outside
    assert "the only folder that the container sees" in outside
    assert "give four" in refusal("serve", gpu_lane, "--http-port", "8001", cwd=tmp_path)
    assert "invalid port" in refusal("serve", gpu_lane, "--grpc-port", "0", cwd=tmp_path)


@pytest.mark.parametrize("name", ["with, comma", 'with "quotes"', "it's : odd", "two\nlines", "-x"])
def test_a_folder_of_any_name_is_mounted(name: str, gpu_lane: Path, tmp_path: Path) -> None:
    """Docker reads a mount as a line of CSV (tried with its own client)."""
    (tmp_path / name).mkdir()
    shutil.move(gpu_lane, tmp_path / name / "gpu")
    (mount,) = option(printed("serve", f"./{name}/gpu", cwd=tmp_path), "--mount")
    (fields,) = csv.reader(io.StringIO(mount, newline=""))
    assert fields == ["type=bind", f"source={tmp_path / name}", "target=/models", "readonly"]


@pytest.mark.parametrize("words", [["build"], ["compile"], ["serve"]])
def test_help_explains(words: list[str], tmp_path: Path) -> None:
    done = run_here("container", *words, "--help", cwd=tmp_path)
    assert f"usage: slipway container {words[0]}" in done.stdout


def test_help_of_the_script_explains(tmp_path: Path) -> None:
    assert "usage: container.py" in run_script("build/container.py", "--help", cwd=tmp_path).stdout
