"""`python -m kangaroo`, and so `torchrun -m kangaroo`: the command line."""

from kangaroo.cli import main

if __name__ == "__main__":
    main()
