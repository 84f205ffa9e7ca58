"""A whole comparison from one file: trainers x folds x seeds, from the first training to the final page.

    from nnunetv2_levit.study import load_study, plan, run, status, report, cancel, init

    study = load_study("study.toml")
    print(plan(study).text())
    run(study)
    status(study).rows

All of them raise `errors.UserError` for what a user can mend.
"""

from nnunetv2_levit.study.api import cancel, init, plan, report, run, status
from nnunetv2_levit.study.file import Study, load_study

__all__ = ["Study", "cancel", "init", "load_study", "plan", "report", "run", "status"]
