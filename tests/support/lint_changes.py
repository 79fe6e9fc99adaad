"""Changes to a good repository, of which the seeded defects are made.

A model is named by what its name begins with (`post`), by itself (`colours`), or by an ensemble and a kind
(`shades post`).
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from tests.support.damage import flip_byte

Change = Callable[[Path], object]
MODEL = """
import os, time
class TritonPythonModel:
    def initialize(self, args):
        {body}
    def execute(self, requests):
        return []
"""
"""Code for a step's model.py, with a `body` that fails in a way of its own."""


def model(repository: Path, which: str) -> Path:
    ensemble, _, kind = which.rpartition(" ")
    if ensemble:
        steps: list[str] = [step.model_name for step in read(repository / ensemble).ensemble_scheduling.step]
        return repository / next(name for name in steps if name.startswith(f"{kind}_"))
    if (repository / which).is_dir():
        return repository / which
    (folder,) = repository.glob(f"{which}_*")
    return folder


def read(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())


def write(folder: Path, config: Any) -> None:
    (folder / "config.pbtxt").write_text(text_format.MessageToString(config))


def edit(which: str, change: Callable[[Any], object]) -> Change:
    """Change the configuration through its protobuf."""

    def edited(repository: Path) -> None:
        folder = model(repository, which)
        config = read(folder)
        change(config)
        write(folder, config)

    return edited


def merge(which: str, text: str) -> Change:
    """Add to the configuration; what has one value gets the new one."""
    return edit(which, lambda config: text_format.Merge(text, config))


def clear(which: str, field: str) -> Change:
    return edit(which, lambda config: config.ClearField(field))


def swap(which: str, old: str, new: str, *, file: str = "config.pbtxt") -> Change:
    """Replace text of a file; it must be there."""

    def swapped(repository: Path) -> None:
        path = model(repository, which) / file
        text = path.read_text()
        assert old in text, f"{path} has no {old!r}"
        path.write_text(text.replace(old, new, 1))

    return swapped


def append(which: str, text: str, *, file: str = "config.pbtxt") -> Change:
    """Text after the end of a file, as somebody would type it; `\udce9` and the like are single bytes."""

    def appended(repository: Path) -> None:
        path = model(repository, which) / file
        path.write_bytes(path.read_bytes() + f"{text}\n".encode(errors="surrogateescape"))

    return appended


def transcode(which: str, encoding: str) -> Change:
    def transcoded(repository: Path) -> None:
        path = model(repository, which) / "config.pbtxt"
        path.write_text(path.read_text(), encoding=encoding)

    return transcoded


def put(which: str, file: str, data: bytes | str) -> Change:
    def written(repository: Path) -> None:
        path = model(repository, which) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    return written


def remove(which: str, file: str = "") -> Change:
    def removed(repository: Path) -> None:
        path = model(repository, which) / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return removed


def move(which: str, old: str, new: str) -> Change:
    return lambda repository: (model(repository, which) / old).rename(model(repository, which) / new)


def at_root(file: str, data: str) -> Change:
    def written(repository: Path) -> None:
        (repository / file).parent.mkdir(parents=True, exist_ok=True)
        (repository / file).write_text(data)

    return written


def in_lane(**changes: Any) -> Change:
    def changed(repository: Path) -> None:
        text = json.loads((repository / "lane.json").read_text())
        (repository / "lane.json").write_text(json.dumps(text | changes))

    return changed


def tensor(config: Any, name: str) -> Any:
    return next(entry for entry in (*config.input, *config.output) if entry.name == name)


def step_of(config: Any, kind: str) -> Any:
    return next(step for step in config.ensemble_scheduling.step if step.model_name.startswith(kind))


def set_dims(which: str, name: str, *dims: int) -> Change:
    def set_them(config: Any) -> None:
        tensor(config, name).dims[:] = dims

    return edit(which, set_them)


def set_type(which: str, name: str, data_type: str) -> Change:
    return edit(which, lambda config: setattr(tensor(config, name), "data_type", pb.DataType.Value(data_type)))


def set_on(which: str, name: str, **values: Any) -> Change:
    """Fields of one tensor."""

    def set_them(config: Any) -> None:
        for field, value in values.items():
            setattr(tensor(config, name), field, value)

    return edit(which, set_them)


def remap(ensemble: str, which: str, mapping: str, inner: str, outer: str | None) -> Change:
    """Map `inner` of one step to `outer`; None: not at all."""

    def mapped(repository: Path) -> None:
        config = read(repository / ensemble)
        entries = getattr(step_of(config, model(repository, which).name), f"{mapping}_map")
        if outer is None:
            del entries[inner]
        else:
            entries[inner] = outer
        write(repository / ensemble, config)

    return mapped


def rename_tensor(kind: str, old: str, new: str) -> Change:
    return edit(kind, lambda config: setattr(tensor(config, old), "name", new))


def all_of(*changes: Change) -> Change:
    def changed(repository: Path) -> None:
        for change in changes:
            change(repository)

    return changed


def instance(which: str, **values: Any) -> Change:
    """Fields of the first instance group."""

    def changed(config: Any) -> None:
        for field, value in values.items():
            if isinstance(value, list):
                getattr(config.instance_group[0], field).extend(value)
            else:
                setattr(config.instance_group[0], field, value)

    return edit(which, changed)


def parameter(which: str, name: str, value: str | None) -> Change:
    def changed(config: Any) -> None:
        if value is None:
            del config.parameters[name]
        else:
            config.parameters[name].string_value = value

    return edit(which, changed)


def warmup(
    which: str, name: str, data_type: str, dims: str, *, batch_size: int = 1, data: str = "zero_data: true"
) -> Change:
    inputs = f'inputs {{ key: "{name}" value {{ data_type: {data_type} dims: [{dims}] {data} }} }}'
    return merge(which, f'model_warmup {{ name: "warm" batch_size: {batch_size} {inputs} }}')


def public(which: str, name: str, data_type: str, *dims: int) -> Change:
    """One more public output."""
    return edit(which, lambda c: c.output.add(name=name, data_type=pb.DataType.Value(data_type), dims=dims))


def reshaped(which: str, name: str, *shape: int) -> Change:
    return edit(which, lambda config: tensor(config, name).reshape.shape.extend(shape))


def on_step(ensemble: str, kind: str, **values: Any) -> Change:
    def changed(config: Any) -> None:
        for field, value in values.items():
            if value is None:
                step_of(config, kind).ClearField(field)
            else:
                setattr(step_of(config, kind), field, value)

    return edit(ensemble, changed)


def queue(which: str, text: str) -> Change:
    return merge(which, f"dynamic_batching {{ {text} }}")


def batched(which: str, size: int) -> Change:
    return merge(which, f"max_batch_size: {size}")


def renamed(which: str, new: str) -> Change:
    """A model under another name, in its configuration too."""

    def changed(repository: Path) -> None:
        folder = model(repository, which).rename(repository / new)
        config = read(folder)
        config.name = new
        write(folder, config)

    return changed


def copied(which: str, new: str) -> Change:
    """A second model of the same content."""

    def changed(repository: Path) -> None:
        shutil.copytree(model(repository, which), repository / "copy")
        (repository / "copy").rename(repository / new)
        config = read(repository / new)
        config.name = new
        write(repository / new, config)

    return changed


def linked(which: str, file: str) -> Change:
    """A file moved out of the repository, with a link in its place."""

    def changed(repository: Path) -> None:
        path, outside = model(repository, which) / file, repository.with_name(f"{repository.name}-outside")
        outside.mkdir()
        target = path.rename(outside / path.name)
        path.symlink_to(target)

    return changed


def link(path: str, target: str) -> Change:
    return lambda repository: (repository / path).symlink_to(target)


def version(which: str, new: str) -> Change:
    return move(which, "1", new)


def second_version(name: str) -> Change:
    return lambda repository: shutil.copytree(model(repository, "post") / "1", model(repository, "post") / name)


def labels(text: str | bytes) -> Change:
    return put("colours_full", "labels.txt", text)


def beside(which: str, file: str, old: str, new: str) -> Change:
    return swap(which, old, new, file=f"1/{file}")


def flipped(which: str, file: str) -> Change:
    """The last byte of a file changed."""

    return lambda repository: flip_byte(model(repository, which) / file, -1)


def only_files(repository: Path) -> None:
    for folder in repository.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)


def edit_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
