"""`python -m backflip` is the same as `backflip`."""

from backflip.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
