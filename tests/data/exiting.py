"""A MIXTURE_OR_TASK_MODULE that is a script and no module."""

raise SystemExit(3)
