"""``python -m clipgan``: the command line of the tree that Python finds first."""

from __future__ import annotations

from clipgan.cli import main

if __name__ == "__main__":
    main()
