"""The suite's model files with another drawing quality, for machines that draw in software.

Most of the time of a software-drawn frame goes into its shadow map and into multisampling, four samples a pixel.
envpool takes the folder of its models as an argument: this makes a folder of links to envpool's own files in which only
the XML files that have a `<quality shadowsize="..."/>` are rewritten.
"""

import hashlib
import pathlib
import re
import tempfile

from wmjax.envs import gl

QUALITY = re.compile(r'<quality shadowsize="(\d+)"/>')


def assets(base_path: str, shadow_size: int | None, multisample: bool) -> str:
    """Returns a `base_path` for envpool of the suite's models with another quality.

    The folder of links is made in the temporary folder at the first call and used again afterwards.

    Args:
        base_path: envpool's own folder of models.
        shadow_size: side of the shadow map in pixels; None: the suite's.
        multisample: False: one sample a pixel; True: the suite's four. With both as in the suite: `base_path` itself.
    """
    if shadow_size is None and multisample:
        return base_path
    source = pathlib.Path(base_path).resolve() / "mujoco" / "assets_dmc"
    stamp = hashlib.sha256(f"{source} {source.stat().st_mtime_ns}".encode()).hexdigest()[:16]
    samples = "" if multisample else ' offsamples="0"'
    folder = gl.cache_folder() / f"quality-{shadow_size}-{multisample}-{stamp}"
    if folder.exists():
        return str(folder)
    gl.cache_folder().mkdir(mode=0o700, exist_ok=True)
    scratch = pathlib.Path(tempfile.mkdtemp(dir=gl.cache_folder()))
    models = scratch / "mujoco" / "assets_dmc"
    for path in source.rglob("*.*"):
        link = models / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.suffix == ".xml" else ""
        changed = QUALITY.sub(lambda m: f'<quality shadowsize="{shadow_size or m[1]}"{samples}/>', text)
        if changed != text:
            link.write_text(changed)
        else:
            link.symlink_to(path)
    try:
        scratch.rename(folder)  # at once, so that nobody sees half of it
    except OSError:
        return str(folder if folder.exists() else scratch)  # another process was faster
    return str(folder)
