"""``python -m nnunetv2_levit.study STUDY.toml JOB``: one job of a study, see `work`."""

from nnunetv2_levit.study.work import main

if __name__ == "__main__":
    raise SystemExit(main())
