"""``nnunetv2_levit study``: a whole comparison from one file."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_levit.errors import STOPPED, UserError

if TYPE_CHECKING:
    from nnunetv2_levit.study import Study

HELP = "trainers x folds x seeds from one file, on this machine or on Slurm, to a page"

SOME_JOBS_FAILED = 1
ACTIONS = ("plan", "run", "status", "report", "cancel")


def _init(arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.study import init

    if arguments.dataset is None:
        raise UserError("study init needs a dataset: add -d NUMBER")
    file = init(arguments.dataset, arguments.output or Path("study.toml"))
    print(f"{file}: edit it, then `nnunetv2_levit study {file} plan`")


def _run(study: "Study", arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.study import run
    from nnunetv2_levit.study.api import failures

    states = run(study, say=lambda line: print(line, flush=True))
    if study.executor == "print":
        return
    for line in failures(study, states):
        print(line)
    names = [state.name for state in states.values()]
    if all(name == "done" for name in names):
        print(f"done: {study.folder / 'report' / 'report.html'}")
    elif study.executor == "local":
        left = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
        print(f"not everything is done ({left}): `nnunetv2_levit study {arguments.file} run` does what is missing")
        raise SystemExit(SOME_JOBS_FAILED if {"failed", "blocked"} & set(names) else STOPPED)


def _status(study: "Study", arguments: argparse.Namespace) -> None:
    from nnunetv2_levit.study import status
    from nnunetv2_levit.study.study_status import watch

    if arguments.watch is not None:
        watch(study, seconds=arguments.watch)
        return
    now = status(study)
    print(json.dumps(now.as_data(), indent=1) if arguments.json else now.text(everything=arguments.all))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "nnunetv2_levit study FILE.toml {" + ",".join(ACTIONS) + "} [options]\n"
        "       nnunetv2_levit study init -d DATASET [-o FILE.toml]"
    )
    parser.epilog = (
        "Exit code of run on this machine: 0 when everything is done, 1 when jobs failed (they are named, all others "
        "are done), 75 when it was stopped (run it again), 2 when the study can't be carried out at all."
    )
    parser.add_argument("file", metavar="FILE", help="the study's file; or init, to write one")
    parser.add_argument("action", nargs="?", choices=ACTIONS, help="what to do")
    parser.add_argument("--executor", choices=["local", "slurm", "print"], help="instead of the file's")
    parser.add_argument("--json", action="store_true", help="plan, status: as JSON")
    parser.add_argument("--all", action="store_true", help="status: also what is done or waits")
    parser.add_argument("--watch", nargs="?", type=float, const=10.0, metavar="SECONDS", help="status: again and again")
    parser.add_argument("--now", action="store_true", help="cancel: kill, instead of after the epoch")
    parser.add_argument("-d", dest="dataset", metavar="DATASET", help="init: dataset id or name")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="init: file to write (default study.toml)")


def run(arguments: argparse.Namespace) -> None:
    if arguments.file == "init":
        _init(arguments)
        return
    if arguments.action is None:
        raise UserError(f"say what to do with {arguments.file}: {', '.join(ACTIONS)}")
    from nnunetv2_levit.study import cancel, load_study, plan, report

    study = load_study(arguments.file, executor=arguments.executor)
    if arguments.action == "plan":
        planned = plan(study)
        print(json.dumps(planned.as_data(), indent=1) if arguments.json else planned.text())
    elif arguments.action == "run":
        _run(study, arguments)
    elif arguments.action == "status":
        _status(study, arguments)
    elif arguments.action == "report":
        print(report(study))
    else:
        told = cancel(study, now=arguments.now)
        print("\n".join(told) if told else "nothing was running or waiting")
