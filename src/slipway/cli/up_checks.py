"""What `slipway up` refuses before its first stage by the spec and the folders alone; `slipway train --check` does the
rest."""

from typing import TYPE_CHECKING

from slipway.contract import SpecError
from slipway.contract.selection import SERVED, listed
from slipway.system.targets import check_folder

if TYPE_CHECKING:
    from slipway.cli.up import Run


def check(run: "Run") -> None:
    """Raise what a later stage would raise.

    Raises:
        SpecError, StorageError: nothing that the spec lists can be served, or a stage may not write where it would.
        CompileError, MissingDependencyError: a compiler is missing.
    """
    from slipway.engines.current import installed
    from slipway.pages import check_page  # not at the top: --help needs no library

    if not listed(run.spec, lane="cpu"):
        raise SpecError(
            f"precisions: {', '.join(run.spec.precisions)} given, but the cpu lane, which slipway up assembles, serves "
            f"{', '.join(SERVED['cpu'])}; list one of these too"
        )
    for target in run.targets:
        installed(target)
    check_folder(run.bundle, kind="bundle")
    check_folder(run.repository, kind="repository")
    check_page(run.folder / "evaluation.html", kind="evaluation")
    check_page(run.folder / "report.html", kind="build report")
