"""Plan the machines that a fleet needs for given rates: their number, the classifiers of each, and the cost."""

import argparse
from pathlib import Path

from slipway.system.json_line import print_json, verb_parser

EPILOG = """examples:
  slipway plan-fleet fleet.yaml demand.yaml
  slipway plan-fleet fleet.yaml demand.yaml --json | tail -1 | jq .boxes

demand.yaml:
  limit_ms: 50              # limit on P99; figures count if they were measured at this limit or a stricter one
  head_room: 0.3            # share kept free of each box's measured capacity and memory
  n_plus_one: true          # every classifier holds its peak with any one box down
  machines:
    cpu-2: {cores: 2, memory_gib: 8, per_hour: 0.09, as_of: 2026-01-01}
  classifiers:
    digits: {mean: 20, peak: 60, measured: [digits.json, benchmarks/results/robustness.json]}
  each: {mean: 0.2, peak: 1, measured: [letters.json]}      # every whole classifier that is not named
  bases:
    lite0: {mean: 10, peak: 24, measured: [benchmarks/results/density.json]}   # all heads; or per_head: true

Rates are in images per second. Each figure comes from the first file of measured that has it. A missing figure is an
error that names the command to measure it: nothing is estimated. The files are those of slipway gate (with --pid, which
gives memory and processor time; best with --find-capacity), slipway tune, and the studies density, efficiency and
robustness.

Boxes that serve the same classifiers are a cell, behind a gateway that divides the requests. Shares of the measured
capacity add up; docs/planning.md has the rule, what it was checked against, and where it is wrong."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.contract import Fleet  # not at the top: --help needs no library
    from slipway.operations.planning.demand import Demand
    from slipway.operations.planning.fleet_plan import plan_fleet
    from slipway.operations.planning.plan_text import plan_lines

    demand = Demand.read(arguments.demand)
    plan = plan_fleet(
        Fleet.read(arguments.fleet), demand, root=arguments.fleet.parent, measured_root=arguments.demand.parent
    )
    print("\n".join(plan_lines(plan)))
    print_json(arguments, plan.plain())


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("fleet", type=Path, help="the fleet file")
    parser.add_argument("demand", type=Path, help="rates, machines, and files of measurements")
    return parser
