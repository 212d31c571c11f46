"""What pyproject.toml cannot say: the wheel carries configs/ inside the package.

They lie at the top of the repository, where people read them; `switchx.settings.gin_files` finds
them in both places.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # a checkout's own are found as they are
            target = Path(self.build_lib, "switchx", "configs")
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree("configs", target)


setup(cmdclass={"build_py": BuildWithConfigs})
