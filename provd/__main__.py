"""`python -m provd` is `provd`."""

from provd.cli import main

raise SystemExit(main())
