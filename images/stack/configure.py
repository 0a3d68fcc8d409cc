"""Write the ultralytics configuration of the image once, where every container reads it.

Runs inside the build, after ultralytics is installed. Without it each start in a fresh container
would write a settings file, talk about it on stdout, and turn analytics on; each plot would look
for a font on the network.

A read-only YOLO_CONFIG_DIR is fine: ultralytics 8.4.190 only needs the folder to exist, and 8.3.63
reads from it as it is. Only training on several GPUs writes there (utils/dist.py): that needs
a writable root file system, or a tmpfs on the DDP folder.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path


def main() -> None:
    """Make the folder, let ultralytics write its own settings, then change what we must."""
    folder = Path(os.environ["YOLO_CONFIG_DIR"])
    folder.mkdir()
    # 8.4.190 reads $YOLO_CONFIG_DIR/Ultralytics, 8.3.63 $YOLO_CONFIG_DIR itself.
    (folder / "Ultralytics").symlink_to(".")
    write_settings()
    link_fonts(folder)
    # Group 0 owns it, so that any user of group 0 can change settings where the root is writable.
    folder.chmod(0o775)
    (folder / "settings.json").chmod(0o664)
    (folder / "DDP").mkdir()
    (folder / "DDP").chmod(0o1777)


def write_settings() -> None:
    """Write settings.json in the schema of the installed version."""
    from ultralytics.utils import SETTINGS

    wanted = {
        "sync": False,
        "uuid": "0" * 64,  # by default a hash of the build machine's MAC address
        "vscode_msg": False,
        "openvino_msg": False,  # said once, and then written to the settings, by each export
        "weights_dir": "/opt/yolo",
        "datasets_dir": "/tmp/datasets",  # noqa: S108 - the one folder that is always writable
        "runs_dir": "/tmp/runs",  # noqa: S108 - likewise
    }
    SETTINGS.update({key: value for key, value in wanted.items() if key in SETTINGS})


def link_fonts(folder: Path) -> None:
    """Give the fonts that ultralytics looks for by name, from the one that matplotlib brings."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise SystemExit("matplotlib is not installed: where would the fonts come from?")
    dejavu = Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):
        (folder / name).symlink_to(dejavu)


if __name__ == "__main__":
    main()
