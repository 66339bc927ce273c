"""The cells of a sweep: what --set, --zip and --tasks ask for, their product, their names and their words."""

import itertools
import re
import zlib
from collections.abc import Mapping, Sequence

from wmjax.run.members import short_name
from wmjax.types import UsageError

TASK = "task"  # the key whose values stand in --config's argument
SEED = "seed"  # the key whose values are outermost: all variants of a seed first, so that a part can be compared
MOST = 100_000  # values of a range
LONGEST, LONGEST_NAME = 40, 160  # characters of a value in a name, and of a name

Cell = dict[str, str]  # key -> value, as written


def read_axes(sets: Sequence[str], zips: Sequence[str], tasks: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """({key: its values}, keys whose values go together) of all flags.

    Args: sets, zips: "KEY=VALUES" each; tasks: those of --tasks.
    Raises: UsageError for a flag without key or values, a key that is named twice, zipped keys of different lengths.
    """
    axes = {TASK: list(tasks)} if tasks else {}
    for flag, texts in (("--set", sets), ("--zip", zips)):
        for text in texts:
            key, equals, values = text.partition("=")
            if not key or not equals:
                raise UsageError(f"{flag}={text}: give KEY=VALUE,VALUE")
            if key in axes:
                raise UsageError(f"{flag}={text}: there is an axis {key} already")
            axes[key] = read_values(f"{flag}={text}", values)
    zipped = [text.partition("=")[0] for text in zips]
    lengths = {key: len(axes[key]) for key in zipped}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"--zip needs as many values of each key, not {lengths}")
    for key, values in axes.items():
        if len(set(values)) < len(values) and key not in zipped:
            raise UsageError(f"{key}={','.join(values)}: names one value twice")
    return axes, zipped


def read_values(where: str, text: str) -> list[str]:
    """["0", "1", "7"] of "0:2,7", ["(1,2)", "3"] of "(1,2),3"; UsageError that names the flag where one is empty."""
    values: list[str] = []
    for each in split_outside(text):
        numbers = re.fullmatch(r"(-?\d+):(-?\d+)", each)
        if numbers and int(numbers[2]) - int(numbers[1]) > MOST:
            raise UsageError(f"{where}: a range has at most {MOST:,} values")
        values += map(str, range(int(numbers[1]), int(numbers[2]))) if numbers else [each]
        if not each or (numbers and int(numbers[1]) >= int(numbers[2])):
            raise UsageError(f"{where}: a value is empty: give V1,V2 or a range FROM:TO, TO not among them")
    return values


def split_outside(text: str) -> list[str]:
    """The parts of a text between commas; commas inside brackets or quotation marks do not count."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def extended(old: Mapping, axes: Mapping[str, list[str]], zipped: Sequence[str]) -> dict[str, list[str]]:
    """The axes of a sweep with more values. old: its definition; raises UsageError for axes that it does not have."""
    if axes.keys() - old["axes"].keys() or (zipped and sorted(zipped) != sorted(old["zipped"])):
        raise UsageError(f"--extend adds values to {', '.join(old['axes'])}, not axes")
    if not zipped and axes.keys() & set(old["zipped"]):
        raise UsageError(f"--extend: {', '.join(old['zipped'])} go together: give all of them with --zip")
    more = {key: [*old["axes"][key], *axes.get(key, [])] for key in old["axes"]}
    united = {key: list(dict.fromkeys(values)) for key, values in more.items()}
    pairs = dict.fromkeys(zip(*(more[key] for key in old["zipped"]), strict=True))
    return united | {key: [pair[i] for pair in pairs] for i, key in enumerate(old["zipped"])}


def product(axes: Mapping[str, list[str]], zipped: Sequence[str]) -> dict[str, Cell]:
    """{name: cell} of all combinations, those of the first seed first."""
    together = [dict(zip(zipped, values, strict=True)) for values in zip(*(axes[key] for key in zipped), strict=True)]
    own = [[{key: value} for value in values] for key, values in axes.items() if key not in zipped]
    combined = itertools.product(*own, together or [{}])
    found = [{key: value for part in parts for key, value in part.items()} for parts in combined]
    seeds = axes.get(SEED, [])
    found.sort(key=lambda cell: seeds.index(cell[SEED]) if seeds else 0)
    cells: dict[str, Cell] = {}
    for cell in found:
        ordered = {key: cell[key] for key in axes}
        if cells.setdefault(name_of(ordered), ordered) is not ordered:
            raise UsageError(f"two cells would have one folder: {name_of(ordered)}; --zip names one twice")
    return cells


def packs(key: str, values: Sequence[str], size: int, old: Sequence[list[str]]) -> list[list[str]]:
    """Values that one program trains, up to `size` in a list; lists that there are already stay as they are.

    Args: key: SEED, of whose values those go together that follow on one another, or TASK, whose values all do.
    """
    found = [list(pack) for pack in old]
    if not size:
        return []
    fresh: list[list[str]] = []
    for value in values:
        if key == SEED and not re.fullmatch(r"\d+", value):
            raise UsageError(f"{SEED}={value}: must be a whole number to be packed")
        if key == TASK and "+" in value:
            raise UsageError(f"--tasks={value}: are several in one program already; --pack={TASK} packs single ones")
        if any(value in pack for pack in found):
            continue
        if fresh and len(fresh[-1]) < size and (key == TASK or int(value) == int(fresh[-1][-1]) + 1):
            fresh[-1].append(value)
        else:
            fresh.append([value])
    return found + fresh


def packed(cells: Mapping[str, Cell], key: str, packs: Sequence[list[str]]) -> list[list[str]]:
    """Names of the cells of each run: those together that differ in `key` alone and have its values in one list."""
    found: dict[tuple, list[str]] = {}
    for name, cell in cells.items():
        pack = next((index for index, pack in enumerate(packs) if cell.get(key) in pack), name)
        others = tuple(value for each, value in cell.items() if each != key)
        found.setdefault((pack, others), []).append(name)
    return list(found.values())


def joined(key: str, cells: Sequence[Cell]) -> tuple[Cell, str, list[str]]:
    """What one program makes of cells that differ in `key` alone.

    Args: key: SEED or TASK; cells: two or more.
    Returns: (the cell whose words start it, its name, the folder of each member, as `lifecycle.folder_names` has them)
    """
    first, values = cells[0], [cell[key] for cell in cells]
    if key == SEED:
        return first, name_of(first | {SEED: f"{values[0]}_to_{values[-1]}"}), [f"seed_{seed}" for seed in values]
    together = first | {TASK: "+".join(map(short_name, values))}
    folders = [f"{short_name(task)}_seed_{first[SEED]}" for task in values]
    return first | {TASK: "+".join(values)}, name_of(together), folders


def name_of(cell: Cell) -> str:
    """Its folder, "kind_rssm_seed_0": the keys' last parts, or all of them where two end alike, and the values."""
    last = [key.rpartition(".")[2] for key in cell]
    short = {key: end if last.count(end) == 1 else key for key, end in zip(cell, last, strict=True)}
    parts = [safe(short_name(value)) if key == TASK else f"{short[key]}_{safe(value)}" for key, value in cell.items()]
    return shortened("_".join(parts), LONGEST_NAME)


def safe(value: str) -> str:
    """A value as part of a folder's name, 1x2 for (1,2); a checksum tells those apart whose other letters are lost."""
    value = re.sub(r"^[(\[]|,?[)\]]$| ", "", value).replace(",", "x")
    plain = re.sub(r"[^A-Za-z0-9.+_-]+", "-", value).lstrip(".") or "x"
    return shortened(plain, LONGEST) if value == plain else f"{plain[:LONGEST]}-{checksum(value)}"


def shortened(text: str, longest: int) -> str:
    """The text, or its beginning and a checksum."""
    return text if len(text) <= longest else f"{text[:longest]}-{checksum(text)}"


def checksum(text: str) -> str:
    """Eight letters and digits."""
    return f"{zlib.crc32(text.encode(errors='backslashreplace')):08x}"


def words(config: str, settings: Sequence[str], cell: Cell) -> tuple[str, list[str]]:
    """("FILE:ARGUMENT", settings) of a cell. config, settings: of the sweep."""
    file, colon, argument = config.partition(":")
    if TASK in cell:
        argument = ",".join([cell[TASK], *argument.split(",")[1:]])
    own = [f"{key}={value}" for key, value in cell.items() if key != TASK]
    return f"{file}{colon}{argument}", [*settings, *own]
