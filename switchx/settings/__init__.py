"""What did gin say? Files, macros, values, changes, and the typed configurations they become."""

from switchx.settings.changes import changed_settings
from switchx.settings.fitting import check_fits
from switchx.settings.forks import check_fork
from switchx.settings.gin_syntax import Binding, read_flag
from switchx.settings.idle import check_idle_of_teacher
from switchx.settings.loading import Request, converted, load
from switchx.settings.settings import Settings

__all__ = [
    "Binding",
    "Request",
    "Settings",
    "changed_settings",
    "check_fits",
    "check_fork",
    "check_idle_of_teacher",
    "converted",
    "load",
    "read_flag",
]
