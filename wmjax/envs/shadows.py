"""The suite's model files with another shadow map, for machines that draw in software.

Most of the time of a software-drawn 64x64 frame goes into its shadow map, so a smaller map is the cheapest speed
there is. envpool takes the folder of its models as an argument: this makes a folder of links to envpool's own files
in which only the XML files that say `shadowsize="..."` are rewritten.
"""

import hashlib
import pathlib
import re
import tempfile

from wmjax.envs import gl


def assets(base_path: str, shadow_size: int) -> str:
    """Returns a `base_path` for envpool of the suite's models with a shadow map of `shadow_size` pixels a side.

    The folder of links is made in the temporary folder at the first call and used again afterwards.
    """
    source = pathlib.Path(base_path).resolve() / "mujoco" / "assets_dmc"
    stamp = hashlib.sha256(f"{source} {source.stat().st_mtime_ns}".encode()).hexdigest()[:16]
    folder = gl.cache_folder() / f"shadow-{shadow_size}-{stamp}"
    if folder.exists():
        return str(folder)
    gl.cache_folder().mkdir(mode=0o700, exist_ok=True)
    scratch = pathlib.Path(tempfile.mkdtemp(dir=gl.cache_folder()))
    models = scratch / "mujoco" / "assets_dmc"
    for path in source.rglob("*.*"):
        link = models / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.suffix == ".xml" else ""
        if "shadowsize" in text:
            link.write_text(re.sub(r'shadowsize="\d+"', f'shadowsize="{shadow_size}"', text))
        else:
            link.symlink_to(path)
    try:
        scratch.rename(folder)  # at once, so that nobody sees half of it
    except OSError:
        return str(folder if folder.exists() else scratch)  # another process was faster
    return str(folder)
