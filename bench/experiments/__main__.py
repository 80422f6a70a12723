"""``python -m bench.experiments run|report PLAN``: the evidence in docs/experiments.

``run`` goes on where it was cut off and writes every finished result to PLAN's JSON file beside its
page; ``report`` turns that file into the tables, curves and grids of the page.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from bench.experiments.plan import list_runs, load_plan
from bench.experiments.report import save_curves, save_grids, write_tables
from bench.experiments.results import FOLDER, Record, load_records, save_records
from bench.experiments.runs import execute

PLANS = Path(__file__).parent
WORK = Path("data/.work/experiments")


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m bench.experiments", description=__doc__)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("plan", choices=sorted(path.stem for path in PLANS.glob("*.yaml")))
    parser.add_argument("--workers", type=int, default=1, help="runs at once")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each run")
    parser.add_argument("--study", help="this study alone")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if arguments.command == "run":
        run(arguments.plan, arguments.study, arguments.workers, arguments.threads)
    else:
        report(arguments.plan)


def run(plan_name: str, study: str | None, workers: int, threads: int) -> None:
    """Every run of the plan that has no result yet; each is recorded as soon as it ends.

    A run that fails leaves the others going; its error comes at the end.
    """
    plan = load_plan(PLANS / f"{plan_name}.yaml")
    runs = [run for run in list_runs(plan) if study in {None, run.study}]
    records = load_records(plan_name)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        futures = {pool.submit(execute, run, WORK, threads): run for run in runs}
        failures = []
        for done in as_completed(futures):
            run = futures[done]
            if (error := done.exception()) is not None:
                failures.append(error)
                print(f"{run.study} / {run.arm} / seed {run.seed}: {error}", flush=True)
                continue
            record = Record(run.study, run.arm, run.seed, **done.result())
            records = [r for r in records if r.place != record.place] + [record]
            save_records(plan_name, records)
            print(f"{run.study} / {run.arm} / seed {run.seed}: {record.values}", flush=True)
    if failures:
        raise BaseExceptionGroup(f"{len(failures)} of {len(runs)} runs failed", failures)


def report(plan_name: str) -> None:
    """Tables and curves from the recorded results; grids from the generators of this machine."""
    plan, records = load_plan(PLANS / f"{plan_name}.yaml"), load_records(plan_name)
    write_tables(plan, plan_name, records)
    pictures = FOLDER / plan_name
    pictures.mkdir(exist_ok=True)
    save_curves(pictures, plan, records)
    save_grids(pictures, plan, records, WORK)


if __name__ == "__main__":
    main()
