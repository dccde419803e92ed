"""`python -m wattwork` is the command `wattwork`."""

from wattwork.cli import main

raise SystemExit(main())
