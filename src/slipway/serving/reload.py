"""Switches a running server to another repository: loads steps, switches ensembles, unloads old steps; or nothing."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from slipway.contract import ServingError
from slipway.contract.shared_rules import changed_class
from slipway.lint.heads import heads_of
from slipway.serving import load_many
from slipway.serving.contents import Contents
from slipway.serving.heads import left_out
from slipway.serving.servable import check_libraries, check_servable
from slipway.serving.server import Say, Server
from slipway.system.text import few

QUIET_S = 1.0
"""Seconds without an answer from the old steps after which no request can be left in them."""
DRAIN_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Change:
    """The changes of a reload."""

    added: tuple[str, ...]
    """Steps to load."""
    switched: tuple[str, ...]
    """Ensembles that are new or different."""
    withdrawn: tuple[str, ...]
    """Ensembles that are no longer served."""
    removed: tuple[str, ...]
    """Steps that are no longer needed."""

    def __str__(self) -> str:
        parts = {"switched": self.switched, "withdrawn": self.withdrawn, "steps in": self.added}
        said = [f"{what} {few(names)}" for what, names in parts.items() if names]
        said += [f"steps out {few(self.removed)}"] if self.removed else []
        return "; ".join(said) or "the repository is unchanged"


def plan(old: Contents, new: Contents, *, loaded: set[str]) -> Change:
    """The changes from `old` to `new`; `loaded` are the models that the server has.

    Raises:
        ServingError: the change needs a restart or another release, or class ids would change their meaning.
    """
    if new.lane.lane != old.lane.lane or new.lane.tensorrt_version_compatible > old.lane.tensorrt_version_compatible:
        raise ServingError(f"{new.origin}: its lane.json needs a server with other options; restart the server")
    if not new.lane.pools_fit(old.lane):
        raise ServingError(
            f"{new.origin}: its steps need larger memory pools on a GPU ({' '.join(new.lane.memory_options)}) than the "
            f"server started with ({' '.join(old.lane.memory_options)}), and pools cannot grow; restart the server"
        )
    check_libraries(new.origin, new.lane)
    for name in new.lane.classifiers.keys() & old.lane.classifiers.keys():
        if new.lane.classifiers[name] != old.lane.classifiers[name]:
            _check_class_ids(name, old.labels(name), new.labels(name))
    # An ensemble that did not load is tried again only after it has changed.
    unchanged = {name for name in new.steps if name in old.steps and old.files(name) == new.files(name)}
    switched = tuple(name for name in new.steps if name not in unchanged)
    needed = new.needed()
    return Change(
        added=tuple(step for step in new.needed(switched) if step not in loaded),
        switched=switched,
        withdrawn=tuple(name for name in old.steps if name not in new.steps and name in loaded),
        removed=tuple(step for step in old.needed() if step not in needed and step in loaded),
    )


def reload(server: Server, new: Contents, *, deadline: float, say: Say = lambda _: None) -> Change:
    """Serve `new` instead of the present contents. Every request meanwhile is answered by one or the other.

    The workspace must have the models of `new` already. The old steps stay for requests under way, until `retire`.

    Raises:
        ServingError: `new` cannot be served; the previous contents are served again.
    """
    old, loaded = server.contents, set(server.loaded)
    try:
        check_servable(new, server.binary)
        change = plan(old, new, loaded=loaded)
        for problem in server.load_steps(change.added, deadline=deadline, say=say).values():
            raise ServingError(problem)
        without = _left_out(server, new, change)
        _switch(server, new, change, without, deadline=deadline, say=say)
    except (ServingError, OSError):  # such as a disk quota, or too many open files
        server.unload(step for step in new.needed() if step not in loaded)
        server.tidy()
        raise
    server.contents, server.left_out = new, without
    needed = set(new.needed())
    server.former = tuple(step for step in (*server.former, *change.removed) if step not in needed)
    server.unload(change.withdrawn)
    return change


def retire(server: Server, *, is_asked: Callable[[float], bool]) -> None:
    """Unload what a reload loaded its ensembles with, and the steps without ensembles, once no request can be in them.

    `is_asked` waits for the given seconds, or until somebody asks for another reload, and says which. That reload then
    begins at once, and the steps are unloaded after it.
    """
    server.tidy()
    if _drained(server, is_asked=is_asked):
        server.unload(server.former)
        server.former = ()


def _left_out(server: Server, new: Contents, change: Change) -> dict[str, str]:
    """The heads that the groups of `new` leave out, which the present ones leave out too.

    Raises:
        ServingError: a head that answers now, or that is new, would be left out.
    """
    old = server.contents
    found = left_out(server.control, new, change.added)
    for head, problem in found.items():
        if head not in server.left_out or new.lane.classifiers[head] != old.lane.classifiers[head]:
            raise ServingError(problem)
    untouched = {head for step in new.needed() if step not in change.added for head in heads_of(new.models[step])}
    return {**found, **{head: problem for head, problem in server.left_out.items() if head in untouched}}


def _switch(
    server: Server, new: Contents, change: Change, without: Mapping[str, str], *, deadline: float, say: Say
) -> None:
    """Switch every ensemble of `change.switched`, or none; `without` are the heads that may be left out.

    Where they are many, their versions alternate between 1 and 2. Loading a version that is being served, tritonserver
    2.51 unlocks a mutex in memory that it may just have freed (`ModelLifeCycle::OnLoadFinal`): it ended once in about
    1,500 ensembles on a busy machine.
    """
    many = len(change.switched) > load_many.MANY
    server.workspace.add(new, change.switched, other_version=many)
    try:
        problems = server.load_ensembles(change.switched, new, without=without, deadline=deadline, say=say)
        for name, problem in problems.items():
            if without.keys().isdisjoint(new.lane.ensembles[name]):
                raise ServingError(problem)
    except (ServingError, OSError):
        _switch_back(server, change, many=many, say=say)
        raise


def _switch_back(server: Server, change: Change, *, many: bool, say: Say) -> None:
    """Serve the ensembles of the server's contents again."""
    old = server.contents
    back = [one for one in change.switched if one in old.steps]
    server.workspace.add(old, back, other_version=many)
    server.load_ensembles(back, old, without=server.left_out, deadline=time.monotonic() + 30, say=say)
    server.unload(one for one in change.switched if one not in old.steps)


def _drained(server: Server, *, is_asked: Callable[[float], bool]) -> bool:
    """Whether requests that entered an old ensemble have left its last step, before another reload is asked for."""
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    answered: Mapping[str, int] = {}
    while server.former and time.monotonic() < deadline:
        try:
            before, answered = answered, {step: server.control.answered(step) for step in server.former}
        except ServingError:  # it died meanwhile, and restarts with the new contents
            return True
        if answered == before:
            return True
        if is_asked(QUIET_S):
            return False
    return True


def _check_class_ids(classifier: str, old: tuple[str, ...], new: tuple[str, ...]) -> None:
    if changed := changed_class(old, new):
        class_id, before, after = changed
        raise ServingError(
            f"{classifier}: class id {class_id} is {before!r} and would become {after!r}; clients rely on it: "
            "append new classes, or serve this bundle under another name"
        )
