"""Writes the candidate's repository, and opens the release."""

from pathlib import Path

from slipway.contract import Fleet, Lane, SpecError
from slipway.contract.lane import FILE_NAME as LANE
from slipway.operations.gateway.plan import GatewayPlan
from slipway.operations.gateway.routes import read_traffic
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.release.compatibility import check_candidate
from slipway.operations.release.lock import only_operator
from slipway.operations.release.promotion import check_own_folder, former_repository
from slipway.operations.release.record import ReleaseRecord, RepositoryFacts, now, read_record, record_path
from slipway.operations.release.trial import stable_repository
from slipway.repository import RepositoryPlan, open_bases, open_fleet, plan_repository
from slipway.system.text import command


def write_candidate(gateway: Path, fleet_file: Path, out: Path | None) -> ReleaseRecord:
    """Assemble the fleet with the candidate's runs active, and open the release at the gateway.

    Raises:
        SpecError: the fleet names no candidate, another release has requests, the candidate cannot answer what stable
            answers, or equals it.
        SlipwayError: the runs cannot be assembled.
    """
    settings = GatewayPlan.open(gateway).settings
    stable, fleet = stable_repository(settings), Fleet.read(fleet_file)
    check_own_folder(stable)
    candidate = (out or stable.with_name(f"{stable.name}-candidate")).resolve()
    tried = fleet.with_candidate()
    assert fleet.release is not None  # with_candidate has refused that
    names = tuple(sorted(fleet.release.candidate))
    if candidate in (stable, former_repository(stable)):
        raise SpecError(f"--out {candidate}: the stable repository or the one before it; give another folder")
    with only_operator(settings.folder, "candidate"):
        _require_no_traffic(gateway, settings)
        _planned(tried, fleet_file, candidate, cores=Lane.read(stable / LANE).cores).write()
        check_candidate(stable, candidate, tried=names)
        record = ReleaseRecord(
            fleet=str(fleet_file.resolve()),
            opened=now(),
            classifiers=names,
            stable=RepositoryFacts.of(stable, names),
            candidate=RepositoryFacts.of(candidate, names),
            settings=fleet.release,
        )
        if record.is_promoted:
            raise SpecError(
                f"{fleet_file}: release.candidate: {stable} serves these runs already; nothing is to be tried"
            )
        _keep_earlier(stable, gateway)
        record.keep()
    return record


def _planned(fleet: Fleet, source: Path, out: Path, *, cores: int | None) -> RepositoryPlan:
    """The plan of the candidate's repository, for the machine that stable was assembled for."""
    root = source.parent
    classifiers, bases = open_fleet(fleet, root=root), open_bases(fleet, root=root)
    return plan_repository(
        classifiers, out, bases=bases, lane=fleet.lane, multi=fleet.multi, cores=cores, inputs=[source]
    )


def _require_no_traffic(gateway: Path, settings: GatewaySettings) -> None:
    traffic = read_traffic(settings)
    if traffic.weight_percent or traffic.mirror_percent:
        raise SpecError(
            f"a candidate has requests now (weight {traffic.weight_percent} %, mirror {traffic.mirror_percent} %); end "
            f"its release: {command('slipway release promote', gateway)}, or rollback"
        )


def _keep_earlier(stable: Path, gateway: Path) -> None:
    """Keep the record of the release before, whose approvals are in it."""
    if earlier := read_record(stable, gateway=gateway):
        when = "".join(character for character in earlier.opened if character.isdigit())[:14]
        record_path(stable).rename(stable.with_name(f"{stable.name}.release-{when}.json"))
