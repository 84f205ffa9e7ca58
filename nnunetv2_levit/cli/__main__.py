"""``python -m nnunetv2_levit.cli``: the command where it is not on the path."""

from nnunetv2_levit.cli import main

if __name__ == "__main__":
    main()
